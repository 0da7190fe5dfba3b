//! What a rule or a backend reference changes in requests and responses.

use std::sync::Arc;

use control_plane_model::{
    Filter, HeaderModifier, HostPattern, PathRewrite, RedirectScheme, RequestRedirect, UrlRewrite,
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    error::{Field as _, InvalidResource, each, required},
    listener::{host, port},
    matching::header_name,
};
use crate::proto::{self, filter::Filter as Wire, path_rewrite::Path};

pub(super) fn to_wire(filter: &Filter) -> proto::Filter {
    let filter = match filter {
        Filter::RequestHeaderModifier(modifier) => Wire::RequestHeaderModifier(modifier_to_wire(modifier)),
        Filter::ResponseHeaderModifier(modifier) => Wire::ResponseHeaderModifier(modifier_to_wire(modifier)),
        Filter::RequestRedirect(redirect) => Wire::RequestRedirect(redirect_to_wire(redirect)),
        Filter::UrlRewrite(rewrite) => Wire::UrlRewrite(proto::UrlRewrite {
            hostname: rewrite.hostname.as_deref().map(str::to_owned),
            path: rewrite.path.as_ref().map(path_to_wire),
        }),
    };
    proto::Filter { filter: Some(filter) }
}

pub(super) fn from_wire(wire: proto::Filter) -> Result<Filter, InvalidResource> {
    match required(wire.filter)? {
        Wire::RequestHeaderModifier(modifier) => {
            modifier_from_wire(modifier).map(Filter::RequestHeaderModifier).field("request_header_modifier")
        }
        Wire::ResponseHeaderModifier(modifier) => {
            modifier_from_wire(modifier).map(Filter::ResponseHeaderModifier).field("response_header_modifier")
        }
        Wire::RequestRedirect(redirect) => {
            redirect_from_wire(redirect).map(Filter::RequestRedirect).field("request_redirect")
        }
        Wire::UrlRewrite(rewrite) => rewrite_from_wire(rewrite).map(Filter::UrlRewrite).field("url_rewrite"),
    }
}

fn modifier_to_wire(modifier: &HeaderModifier) -> proto::HeaderModifier {
    let header = |(name, value): &(HeaderName, HeaderValue)| proto::Header {
        name: name.as_str().to_owned(),
        value: value.as_bytes().to_vec().into(),
    };
    proto::HeaderModifier {
        set: modifier.set.iter().map(header).collect(),
        add: modifier.add.iter().map(header).collect(),
        remove: modifier.remove.iter().map(|name| name.as_str().to_owned()).collect(),
    }
}

fn modifier_from_wire(wire: proto::HeaderModifier) -> Result<HeaderModifier, InvalidResource> {
    let header = |header: proto::Header| {
        let value = HeaderValue::from_maybe_shared(header.value).map_err(InvalidResource::new).field("value")?;
        Ok((header_name(&header.name).field("name")?, value))
    };
    Ok(HeaderModifier {
        set: each(wire.set, "set", header)?,
        add: each(wire.add, "add", header)?,
        remove: each(wire.remove, "remove", |name| header_name(&name))?,
    })
}

fn redirect_to_wire(redirect: &RequestRedirect) -> proto::RequestRedirect {
    let scheme = match redirect.scheme {
        None => proto::RedirectScheme::Unspecified,
        Some(RedirectScheme::Http) => proto::RedirectScheme::Http,
        Some(RedirectScheme::Https) => proto::RedirectScheme::Https,
    };
    proto::RequestRedirect {
        scheme: scheme.into(),
        hostname: redirect.hostname.as_deref().map(str::to_owned),
        path: redirect.path.as_ref().map(path_to_wire),
        port: redirect.port.map(|port| u32::from(port.get())),
        status: u32::from(redirect.status.as_u16()),
    }
}

fn redirect_from_wire(wire: proto::RequestRedirect) -> Result<RequestRedirect, InvalidResource> {
    let scheme = match proto::RedirectScheme::try_from(wire.scheme) {
        Ok(proto::RedirectScheme::Unspecified) => Ok(None),
        Ok(proto::RedirectScheme::Http) => Ok(Some(RedirectScheme::Http)),
        Ok(proto::RedirectScheme::Https) => Ok(Some(RedirectScheme::Https)),
        Err(_) => Err(InvalidResource::unknown()),
    };
    let status = match wire.status {
        301 => Ok(StatusCode::MOVED_PERMANENTLY),
        302 => Ok(StatusCode::FOUND),
        303 => Ok(StatusCode::SEE_OTHER),
        307 => Ok(StatusCode::TEMPORARY_REDIRECT),
        308 => Ok(StatusCode::PERMANENT_REDIRECT),
        other => Err(InvalidResource::new(format_args!("{other} is not 301, 302, 303, 307 or 308"))),
    };
    Ok(RequestRedirect {
        scheme: scheme.field("scheme")?,
        hostname: hostname(wire.hostname).field("hostname")?,
        path: wire.path.map(path_from_wire).transpose().field("path")?,
        port: wire.port.map(port).transpose().field("port")?,
        status: status.field("status")?,
    })
}

fn rewrite_from_wire(wire: proto::UrlRewrite) -> Result<UrlRewrite, InvalidResource> {
    Ok(UrlRewrite {
        hostname: hostname(wire.hostname).field("hostname")?,
        path: wire.path.map(path_from_wire).transpose().field("path")?,
    })
}

fn path_to_wire(path: &PathRewrite) -> proto::PathRewrite {
    let path = match path {
        PathRewrite::Full(path) => Path::Full(path.to_string()),
        PathRewrite::Prefix(path) => Path::Prefix(path.to_string()),
    };
    proto::PathRewrite { path: Some(path) }
}

fn path_from_wire(wire: proto::PathRewrite) -> Result<PathRewrite, InvalidResource> {
    Ok(match required(wire.path)? {
        Path::Full(path) => PathRewrite::Full(path.into()),
        Path::Prefix(path) => PathRewrite::Prefix(path.into()),
    })
}

fn hostname(text: Option<String>) -> Result<Option<Arc<str>>, InvalidResource> {
    let Some(text) = text else { return Ok(None) };
    match host(&text)? {
        HostPattern::Exact(host) if *host == *text => Ok(Some(host)),
        _ => Err(InvalidResource::new(format_args!("{text:?} is not one host in lower case"))),
    }
}
