//! Filters of a rule or a backend reference. What is not supported makes the rule fail: a filter is never skipped.

use std::num::NonZeroU16;

use control_plane_model::{
    Filter, HeaderModifier, PathMatch, PathRewrite, RedirectScheme, RequestRedirect, UrlRewrite,
};
use crds::gateway_api::{
    GRPCRouteFilter, GRPCRouteFilterType, HTTPHeader, HTTPHeaderFilter, HTTPPathModifier, HTTPPathModifierType,
    HTTPRedirectScheme, HTTPRequestRedirectFilter, HTTPRouteFilter, HTTPRouteFilterType, HTTPURLRewriteFilter,
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{RuleProblem, values};

/// Where a list of filters stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Rule,
    BackendRef,
}

/// The filters of an HTTPRoute's rule or backend reference. `matches` are the rule's, for prefixes that are replaced.
pub(super) fn http(
    filters: Option<&[HTTPRouteFilter]>,
    place: Place,
    matches: &[PathMatch],
) -> Result<Vec<Filter>, RuleProblem> {
    let mut list = Vec::new();
    for filter in filters.unwrap_or_default() {
        let unsupported = |name: &str| Err(RuleProblem::unsupported(format!("filter {name} is not supported yet")));
        let filter = match (filter.r#type, place) {
            (HTTPRouteFilterType::RequestHeaderModifier, _) => {
                Filter::RequestHeaderModifier(headers(filter.request_header_modifier.as_ref())?)
            }
            (HTTPRouteFilterType::ResponseHeaderModifier, _) => {
                Filter::ResponseHeaderModifier(headers(filter.response_header_modifier.as_ref())?)
            }
            (HTTPRouteFilterType::RequestRedirect, Place::Rule) => {
                Filter::RequestRedirect(redirect(present(filter.request_redirect.as_ref())?, matches)?)
            }
            (HTTPRouteFilterType::UrlRewrite, _) => {
                Filter::UrlRewrite(rewrite(present(filter.url_rewrite.as_ref())?, matches)?)
            }
            (HTTPRouteFilterType::RequestRedirect, Place::BackendRef) => {
                return unsupported("RequestRedirect of a backendRef");
            }
            (HTTPRouteFilterType::RequestMirror, _) => return unsupported("RequestMirror"),
            (HTTPRouteFilterType::Cors, _) => return unsupported("CORS"),
            (HTTPRouteFilterType::ExternalAuth, _) => return unsupported("ExternalAuth"),
            (HTTPRouteFilterType::ExtensionRef, _) => return extension(filter.extension_ref.as_ref()),
        };
        push(&mut list, filter)?;
    }
    let redirects = list.iter().any(|filter| matches!(filter, Filter::RequestRedirect(_)));
    if redirects && list.iter().any(|filter| matches!(filter, Filter::UrlRewrite(_))) {
        let message = "filters RequestRedirect and URLRewrite exclude each other".to_owned();
        return Err(RuleProblem { reason: "IncompatibleFilters", message });
    }
    Ok(list)
}

/// The filters of a GRPCRoute's rule or backend reference.
pub(super) fn grpc(filters: Option<&[GRPCRouteFilter]>) -> Result<Vec<Filter>, RuleProblem> {
    let mut list = Vec::new();
    for filter in filters.unwrap_or_default() {
        let filter = match filter.r#type {
            GRPCRouteFilterType::RequestHeaderModifier => {
                Filter::RequestHeaderModifier(headers(filter.request_header_modifier.as_ref())?)
            }
            GRPCRouteFilterType::ResponseHeaderModifier => {
                Filter::ResponseHeaderModifier(headers(filter.response_header_modifier.as_ref())?)
            }
            GRPCRouteFilterType::RequestMirror => {
                return Err(RuleProblem::unsupported("filter RequestMirror is not supported yet".to_owned()));
            }
            GRPCRouteFilterType::ExtensionRef => return extension(filter.extension_ref.as_ref()),
        };
        push(&mut list, filter)?;
    }
    Ok(list)
}

fn extension(reference: Option<&crds::gateway_api::LocalObjectReference>) -> Result<Vec<Filter>, RuleProblem> {
    let named = reference.map_or_else(String::new, |object| format!(" names {} of {:?}", object.kind, object.group));
    Err(RuleProblem::unsupported(format!("filter ExtensionRef{named}: this kind is not supported")))
}

fn push(list: &mut Vec<Filter>, filter: Filter) -> Result<(), RuleProblem> {
    let same = |other: &Filter| std::mem::discriminant(other) == std::mem::discriminant(&filter);
    if list.iter().any(same) {
        return Err(RuleProblem::unsupported("one filter type is given twice".to_owned()));
    }
    list.push(filter);
    Ok(())
}

fn present<T>(field: Option<&T>) -> Result<&T, RuleProblem> {
    field.ok_or_else(|| RuleProblem::unsupported("a filter lacks the field that its type names".to_owned()))
}

fn headers(modifier: Option<&HTTPHeaderFilter>) -> Result<HeaderModifier, RuleProblem> {
    let modifier = present(modifier)?;
    let name = |name: &str| values::changeable_header(name).map_err(RuleProblem::unsupported);
    let pairs = |list: Option<&Vec<HTTPHeader>>| -> Result<Vec<(HeaderName, HeaderValue)>, RuleProblem> {
        let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for header in list.into_iter().flatten() {
            let name = name(&header.name)?;
            // Of equivalent names only the first counts (`HTTPHeaderFilter`).
            if !pairs.iter().any(|(other, _)| *other == name) {
                pairs.push((name, values::header_value(&header.value).map_err(RuleProblem::unsupported)?));
            }
        }
        Ok(pairs)
    };
    Ok(HeaderModifier {
        set: pairs(modifier.set.as_ref())?,
        add: pairs(modifier.add.as_ref())?,
        remove: modifier.remove.iter().flatten().map(|header| name(header)).collect::<Result<_, _>>()?,
    })
}

fn redirect(redirect: &HTTPRequestRedirectFilter, matches: &[PathMatch]) -> Result<RequestRedirect, RuleProblem> {
    let scheme = redirect.scheme.map(|scheme| match scheme {
        HTTPRedirectScheme::Http => RedirectScheme::Http,
        HTTPRedirectScheme::Https => RedirectScheme::Https,
    });
    let code = redirect.status_code.unwrap_or(302);
    let status = u16::try_from(code).ok().filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308));
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    let port = |number: i32| {
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        port.ok_or_else(|| RuleProblem::unsupported(format!("redirect to port {number}")))
    };
    Ok(RequestRedirect {
        scheme,
        hostname: hostname(redirect.hostname.as_deref())?,
        path: redirect.path.as_ref().map(|path| path_rewrite(path, matches)).transpose()?,
        port: redirect.port.map(port).transpose()?,
        status: status.ok_or_else(|| {
            RuleProblem::unsupported(format!("redirect with status {code}, want 301, 302, 303, 307 or 308"))
        })?,
    })
}

fn rewrite(rewrite: &HTTPURLRewriteFilter, matches: &[PathMatch]) -> Result<UrlRewrite, RuleProblem> {
    Ok(UrlRewrite {
        hostname: hostname(rewrite.hostname.as_deref())?,
        path: rewrite.path.as_ref().map(|path| path_rewrite(path, matches)).transpose()?,
    })
}

fn hostname(host: Option<&str>) -> Result<Option<std::sync::Arc<str>>, RuleProblem> {
    host.map(values::exact_host).transpose().map_err(RuleProblem::unsupported)
}

fn path_rewrite(path: &HTTPPathModifier, matches: &[PathMatch]) -> Result<PathRewrite, RuleProblem> {
    match path.r#type {
        HTTPPathModifierType::ReplaceFullPath => {
            let text = present(path.replace_full_path.as_ref())?;
            Ok(PathRewrite::Full(replacement(text)?.into()))
        }
        HTTPPathModifierType::ReplacePrefixMatch => {
            if !matches.iter().all(|path| matches!(path, PathMatch::Prefix(_))) {
                let message = "replacePrefixMatch needs a rule whose matches are all of type PathPrefix".to_owned();
                return Err(RuleProblem::unsupported(message));
            }
            let text = present(path.replace_prefix_match.as_ref())?;
            Ok(PathRewrite::Prefix(replacement(text)?.into()))
        }
    }
}

/// A path to put in place of another; the proxy puts a `/` in front where there is none.
fn replacement(text: &str) -> Result<&str, RuleProblem> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"?#\\\"<>^`{|}".contains(&byte);
    if text.bytes().all(allowed) {
        Ok(text)
    } else {
        Err(RuleProblem::unsupported(format!("path {text:?} holds a query or a character that no path has")))
    }
}
