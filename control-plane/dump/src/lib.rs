//! Configuration objects as JSON, in the words of the model: what the gateway's `/config` shows, and what `nebulactl` explains.
//!
//! Invariant: no private key, and no value of a header that carries credentials. Nothing makes configuration of it again.

mod authentication;
mod backend;
mod client_policy;
mod explain;
mod policy;

pub use explain::{explain, route_key};

use control_plane_model::{
    AccessLog, AttachedHost, BackendProtocol, BackendTarget, Filter, HeaderModifier, HostPattern, ListenerProtocol,
    PathMatch, PathRewrite, PolicyKey, RedirectScheme, RequestRedirect, Resource, RouteMatch, Rule, RuleAction,
    Snapshot, UrlRewrite, ValueMatch, WeightedBackend,
};
use http::{HeaderName, HeaderValue, header};
use serde_json::{Value, json};

/// Headers whose values are shown as [`HIDDEN`].
const CREDENTIALS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE, header::SET_COOKIE];
const HIDDEN: &str = "(hidden)";

/// Every object by the text form of its key.
pub fn objects(snapshot: &Snapshot) -> serde_json::Map<String, Value> {
    snapshot.resources().map(|object| (object.key().to_string(), resource(&object))).collect()
}

/// One object, without its key.
fn resource(resource: &Resource) -> Value {
    match resource {
        Resource::Gateway(gateway) => json!({
            "access_log": gateway.access_log == AccessLog::Json,
            "policies": policies(&gateway.policies),
            "tracing": gateway.tracing.as_ref().map(|tracing| json!({
                "endpoint": tracing.endpoint,
                "sampling": tracing.sampling.get(),
            })),
        }),
        Resource::Certificate(certificate) => json!({ "chain_length": certificate.chain.len() }),
        Resource::Policy(policy) => policy::spec(&policy.spec),
        Resource::Listener(listener) => json!({
            "addresses": listener.addresses,
            "port": listener.port,
            "hostname": host(&listener.hostname),
            "policies": policies(&listener.policies),
            "certificates": match &listener.protocol {
                ListenerProtocol::Http => Value::Null,
                ListenerProtocol::Https(tls) => {
                    tls.certificates.iter().map(ToString::to_string).collect::<Vec<_>>().into()
                }
            },
        }),
        Resource::Backend(backend) => json!({
            "protocol": match backend.protocol {
                BackendProtocol::Http1 => "http1",
                BackendProtocol::H2c => "h2c",
            },
            "policies": policies(&backend.policies),
        }),
        Resource::Endpoints(endpoints) => {
            endpoints.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect::<Vec<_>>().into()
        }
        Resource::Route(route) => json!({
            "created": route.created,
            "attachments": route.attachments.iter().map(|attachment| json!({
                "listener": attachment.listener.to_string(),
                "hosts": attachment.hosts.iter().map(attached).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "policies": policies(&route.policies),
            "rules": route.rules.iter().map(rule).collect::<Vec<_>>(),
        }),
    }
}

fn policies(keys: &[PolicyKey]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Any => "*".to_owned(),
        other => other.to_string(),
    }
}

fn attached(attached: &AttachedHost) -> Value {
    json!({ "served": host(&attached.served), "declared": host(&attached.declared) })
}

fn rule(rule: &Rule) -> Value {
    json!({
        "name": rule.name,
        "policies": policies(&rule.policies),
        "matches": rule.matches.iter().map(route_match).collect::<Vec<_>>(),
        "filters": rule.filters.iter().map(filter).collect::<Vec<_>>(),
        "backends": match &rule.action {
            RuleAction::Forward(backends) => backends.iter().map(weighted).collect::<Vec<_>>().into(),
            RuleAction::Fail(_) => Value::Null,
        },
        "fails": match &rule.action {
            RuleAction::Forward(_) => None,
            RuleAction::Fail(unavailable) => Some(format!("{unavailable:?}")),
        },
        "timeouts": {
            "request_seconds": rule.timeouts.request.map(|limit| limit.as_secs_f64()),
            "backend_request_seconds": rule.timeouts.backend_request.map(|limit| limit.as_secs_f64()),
        },
    })
}

fn weighted(backend: &WeightedBackend) -> Value {
    let (key, fails) = match &backend.target {
        BackendTarget::Backend(key) => (Some(key.to_string()), None),
        BackendTarget::Invalid(unavailable) => (None, Some(format!("{unavailable:?}"))),
    };
    let filters: Vec<_> = backend.filters.iter().map(filter).collect();
    json!({ "backend": key, "fails": fails, "weight": backend.weight, "filters": filters })
}

fn route_match(wanted: &RouteMatch) -> Value {
    let pairs = |pairs: Vec<(&str, &ValueMatch)>| -> Value {
        pairs
            .into_iter()
            .map(|(name, wanted)| (name.to_owned(), value(wanted)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let path = match &wanted.path {
        PathMatch::Exact(path) => json!({ "exact": path }),
        PathMatch::Prefix(prefix) => json!({ "prefix": prefix }),
        PathMatch::Regex(regex) => json!({ "regex": regex.as_str() }),
        PathMatch::Grpc { service, method } => {
            json!({ "grpc_service": service.as_ref().map(value), "grpc_method": method.as_ref().map(value) })
        }
    };
    json!({
        "path": path,
        "method": wanted.method.as_ref().map(http::Method::as_str),
        "headers": pairs(wanted.headers.iter().map(|header| (header.name.as_str(), &header.value)).collect()),
        "query": pairs(wanted.query.iter().map(|query| (&*query.name, &query.value)).collect()),
    })
}

fn value(wanted: &ValueMatch) -> Value {
    match wanted {
        ValueMatch::Exact(text) => json!({ "exact": text }),
        ValueMatch::Regex(regex) => json!({ "regex": regex.as_str() }),
    }
}

fn filter(filter: &Filter) -> Value {
    match filter {
        Filter::RequestHeaderModifier(modifier) => json!({ "request_header_modifier": header_modifier(modifier) }),
        Filter::ResponseHeaderModifier(modifier) => json!({ "response_header_modifier": header_modifier(modifier) }),
        Filter::RequestRedirect(RequestRedirect { scheme, hostname, path, port, status }) => json!({
            "request_redirect": {
                "scheme": scheme.map(|scheme| match scheme {
                    RedirectScheme::Http => "http",
                    RedirectScheme::Https => "https",
                }),
                "hostname": hostname,
                "path": path.as_ref().map(path_rewrite),
                "port": port,
                "status": status.as_u16(),
            },
        }),
        Filter::UrlRewrite(UrlRewrite { hostname, path }) => {
            json!({ "url_rewrite": { "hostname": hostname, "path": path.as_ref().map(path_rewrite) } })
        }
    }
}

fn header_modifier(modifier: &HeaderModifier) -> Value {
    let shown = |fields: &[(HeaderName, HeaderValue)]| -> Vec<Value> {
        let text = |name: &HeaderName, value: &HeaderValue| {
            if CREDENTIALS.contains(name) {
                HIDDEN.to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            }
        };
        fields.iter().map(|(name, value)| json!({ "name": name.as_str(), "value": text(name, value) })).collect()
    };
    json!({
        "set": shown(&modifier.set),
        "add": shown(&modifier.add),
        "remove": modifier.remove.iter().map(HeaderName::as_str).collect::<Vec<_>>(),
    })
}

fn path_rewrite(rewrite: &PathRewrite) -> Value {
    match rewrite {
        PathRewrite::Full(path) => json!({ "full": path }),
        PathRewrite::Prefix(prefix) => json!({ "prefix": prefix }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_a_filter_sets_are_hidden_and_the_rest_is_shown() {
        let modifier = HeaderModifier {
            set: vec![
                (header::AUTHORIZATION, HeaderValue::from_static("Basic c2VjcmV0")),
                (HeaderName::from_static("x-team"), HeaderValue::from_static("shop")),
            ],
            ..HeaderModifier::default()
        };
        let shown = filter(&Filter::RequestHeaderModifier(modifier)).to_string();
        assert!(!shown.contains("c2VjcmV0"), "{shown}");
        assert!(shown.contains(r#"{"name":"x-team","value":"shop"}"#), "{shown}");
    }
}
