//! Any valid object of every kind.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use control_plane_model::*;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use proptest::{collection::vec, option::of, prelude::*};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

use crate::policies;

pub fn text(pattern: &'static str) -> impl Strategy<Value = Arc<str>> {
    pattern.prop_map(Arc::from)
}

pub fn object_name() -> impl Strategy<Value = ObjectName> {
    ("[a-z][a-z0-9-]{0,8}", "[a-z][a-z0-9.-]{0,8}").prop_map(|(namespace, name)| ObjectName::new(namespace, name))
}

fn gateway_key() -> impl Strategy<Value = GatewayKey> {
    object_name().prop_map(GatewayKey)
}

fn listener_key() -> impl Strategy<Value = ListenerKey> {
    (gateway_key(), of(object_name()), text("[a-z][a-z0-9-]{0,8}"))
        .prop_map(|(gateway, listener_set, name)| ListenerKey { gateway, listener_set, name })
}

fn port() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|port| port.try_into().unwrap())
}

fn backend_key() -> impl Strategy<Value = BackendKey> {
    (object_name(), port()).prop_map(|(service, port)| BackendKey { service, port })
}

fn host_name() -> impl Strategy<Value = String> {
    vec("[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", 1..4).prop_map(|labels| labels.join("."))
}

fn host() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        Just(HostPattern::Any),
        host_name().prop_map(|name| HostPattern::Exact(name.into())),
        host_name().prop_map(|name| HostPattern::Wildcard(format!(".{name}").into())),
    ]
}

fn regex() -> impl Strategy<Value = Regex> {
    prop_oneof!["[a-z]{1,5}", Just("a|b".to_owned()), Just(r"/v\d+/.*".to_owned()), Just(String::new())]
        .prop_map(|pattern| Regex::new(&pattern).unwrap())
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![text("\\PC{0,12}").prop_map(ValueMatch::Exact), regex().prop_map(ValueMatch::Regex)]
}

pub fn header_name() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z0-9-]{0,12}".prop_map(|name| HeaderName::try_from(name).unwrap())
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    vec(prop_oneof![Just(b'\t'), 0x20_u8..0x7f, 0x80_u8..=0xff], 0..12)
        .prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        text("/\\PC{0,12}").prop_map(PathMatch::Exact),
        text("/([a-z]{1,5}(/[a-z]{1,5}){0,2})?").prop_map(PathMatch::Prefix),
        regex().prop_map(PathMatch::Regex),
        (of(value_match()), of(value_match())).prop_map(|(service, method)| PathMatch::Grpc { service, method }),
    ]
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof!["[A-Z]{1,8}"].prop_map(|name| Method::from_bytes(name.as_bytes()).unwrap())
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let headers = prop::collection::hash_map(header_name(), value_match(), 0..3)
        .prop_map(|headers| headers.into_iter().map(|(name, value)| HeaderMatch { name, value }).collect());
    let query = prop::collection::hash_map(text("\\PC{1,8}"), value_match(), 0..3)
        .prop_map(|query| query.into_iter().map(|(name, value)| QueryMatch { name, value }).collect());
    (path_match(), of(method()), headers, query).prop_map(|(path, method, headers, query)| RouteMatch {
        path,
        method,
        headers,
        query,
    })
}

fn header_modifier() -> impl Strategy<Value = HeaderModifier> {
    let headers = || vec((header_name(), header_value()), 0..3);
    (headers(), headers(), vec(header_name(), 0..3)).prop_map(|(set, add, remove)| HeaderModifier { set, add, remove })
}

fn path_rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof![text("\\PC{0,12}").prop_map(PathRewrite::Full), text("\\PC{0,12}").prop_map(PathRewrite::Prefix)]
}

fn request_redirect() -> impl Strategy<Value = RequestRedirect> {
    let scheme = of(prop_oneof![Just(RedirectScheme::Http), Just(RedirectScheme::Https)]);
    let status = prop::sample::select(vec![301_u16, 302, 303, 307, 308]);
    (scheme, of(host_name()), of(path_rewrite()), of(port()), status).prop_map(
        |(scheme, hostname, path, port, status)| RequestRedirect {
            scheme,
            hostname: hostname.map(Into::into),
            path,
            port,
            status: StatusCode::from_u16(status).unwrap(),
        },
    )
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        header_modifier().prop_map(Filter::RequestHeaderModifier),
        header_modifier().prop_map(Filter::ResponseHeaderModifier),
        request_redirect().prop_map(Filter::RequestRedirect),
        (of(host_name()), of(path_rewrite()))
            .prop_map(|(hostname, path)| Filter::UrlRewrite(UrlRewrite { hostname: hostname.map(Into::into), path })),
    ]
}

fn unavailable() -> impl Strategy<Value = Unavailable> {
    prop::sample::select(vec![
        Unavailable::BackendNotFound,
        Unavailable::InvalidKind,
        Unavailable::RefNotPermitted,
        Unavailable::UnsupportedProtocol,
        Unavailable::UnsupportedValue,
        Unavailable::InvalidFilter,
    ])
}

fn weighted_backend() -> impl Strategy<Value = WeightedBackend> {
    let target =
        prop_oneof![backend_key().prop_map(BackendTarget::Backend), unavailable().prop_map(BackendTarget::Invalid)];
    (0..=1_000_000_u32, target, vec(filter(), 0..2)).prop_map(|(weight, target, filters)| WeightedBackend {
        weight,
        target,
        filters,
    })
}

pub fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Duration::new(seconds, nanoseconds))
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        vec(weighted_backend(), 0..3).prop_map(RuleAction::Forward),
        unavailable().prop_map(RuleAction::Fail)
    ];
    let timeouts =
        (of(duration()), of(duration())).prop_map(|(request, backend_request)| Timeouts { request, backend_request });
    (of(text("\\PC{0,8}")), vec(route_match(), 1..3), vec(filter(), 0..3), action, timeouts, policies::keys()).prop_map(
        |(name, matches, filters, action, timeouts, policies)| Rule {
            name,
            matches,
            filters,
            action,
            timeouts,
            policies,
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let hosts = prop::collection::btree_map(host(), host(), 1..3)
        .prop_map(|hosts| hosts.into_iter().map(|(served, declared)| AttachedHost { served, declared }).collect());
    let attachment = (listener_key(), hosts).prop_map(|(listener, hosts)| Attachment { listener, hosts });
    let kind = prop_oneof![Just(RouteKind::Http), Just(RouteKind::Grpc)];
    (kind, object_name(), any::<i64>(), vec(attachment, 0..3), vec(rule(), 0..3), policies::keys()).prop_map(
        |(kind, name, created, attachments, rules, policies)| {
            let key = RouteKey { kind, name };
            Route { key, created, attachments, rules, policies }
        },
    )
}

fn listener() -> impl Strategy<Value = Listener> {
    let protocol = prop_oneof![
        Just(ListenerProtocol::Http),
        vec(object_name().prop_map(CertificateKey), 1..3)
            .prop_map(|certificates| ListenerProtocol::Https(TlsTermination { certificates })),
    ];
    (listener_key(), vec(any::<IpAddr>(), 0..3), port(), protocol, host(), policies::keys()).prop_map(
        |(key, addresses, port, protocol, hostname, policies)| Listener {
            key,
            addresses,
            port,
            protocol,
            hostname,
            policies,
        },
    )
}

fn certificate() -> impl Strategy<Value = Certificate> {
    let der = || vec(any::<u8>(), 1..40);
    let private_key = prop_oneof![
        der().prop_map(|key| PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key))),
        der().prop_map(|key| PrivateKeyDer::from(PrivatePkcs1KeyDer::from(key))),
        der().prop_map(|key| PrivateKeyDer::from(PrivateSec1KeyDer::from(key))),
    ];
    (object_name(), vec(der(), 1..4), private_key).prop_map(|(name, chain, private_key)| Certificate {
        key: CertificateKey(name),
        chain: chain.into_iter().map(Into::into).collect(),
        private_key,
    })
}

fn gateway() -> impl Strategy<Value = Gateway> {
    let tracing = ("http://[a-z]{1,8}:4317", 0.0..=1.0_f64)
        .prop_map(|(endpoint, ratio)| Tracing { endpoint, sampling: SamplingRatio::new(ratio).unwrap() });
    (gateway_key(), prop_oneof![Just(AccessLog::Json), Just(AccessLog::Off)], of(tracing), policies::keys())
        .prop_map(|(key, access_log, tracing, policies)| Gateway { key, access_log, tracing, policies })
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let addresses = prop::collection::btree_set((any::<IpAddr>(), any::<u16>()), 0..5);
    (backend_key(), addresses).prop_map(|(key, addresses)| {
        let endpoints: BTreeSet<Endpoint> =
            addresses.into_iter().map(|address| Endpoint { address: SocketAddr::from(address) }).collect();
        Endpoints { key, endpoints: endpoints.into_iter().collect() }
    })
}

fn backend() -> impl Strategy<Value = Backend> {
    (backend_key(), prop_oneof![Just(BackendProtocol::Http1), Just(BackendProtocol::H2c)], policies::keys())
        .prop_map(|(key, protocol, policies)| Backend { key, protocol, policies })
}

/// Any valid object.
pub fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        1 => gateway().prop_map(|object| Resource::Gateway(Arc::new(object))),
        1 => certificate().prop_map(|object| Resource::Certificate(Arc::new(object))),
        1 => policies::policy().prop_map(|object| Resource::Policy(Arc::new(object))),
        1 => listener().prop_map(|object| Resource::Listener(Arc::new(object))),
        1 => backend().prop_map(|object| Resource::Backend(Arc::new(object))),
        1 => endpoints().prop_map(|object| Resource::Endpoints(Arc::new(object))),
        5 => route().prop_map(|object| Resource::Route(Arc::new(object))),
    ]
}
