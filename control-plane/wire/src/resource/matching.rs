//! What a rule asks of a request.

use std::sync::Arc;

use control_plane_model::{HeaderMatch, PathMatch, QueryMatch, Regex, RouteMatch, ValueMatch};
use http::{HeaderName, Method};

use super::error::{Field as _, InvalidResource, distinct, each, required};
use crate::proto::{self, path_match::Path, value_match::Value};

pub(super) fn to_wire(matching: &RouteMatch) -> proto::RouteMatch {
    let header = |header: &HeaderMatch| proto::HeaderMatch {
        name: header.name.as_str().to_owned(),
        value: Some(value_to_wire(&header.value)),
    };
    let query = |query: &QueryMatch| proto::QueryMatch {
        name: query.name.to_string(),
        value: Some(value_to_wire(&query.value)),
    };
    let path = match &matching.path {
        PathMatch::Exact(path) => Path::Exact(path.to_string()),
        PathMatch::Prefix(path) => Path::Prefix(path.to_string()),
        PathMatch::Regex(regex) => Path::Regex(regex.as_str().to_owned()),
        PathMatch::Grpc { service, method } => Path::Grpc(proto::GrpcMethod {
            service: service.as_ref().map(value_to_wire),
            method: method.as_ref().map(value_to_wire),
        }),
    };
    proto::RouteMatch {
        path: Some(proto::PathMatch { path: Some(path) }),
        method: matching.method.as_ref().map(ToString::to_string),
        headers: matching.headers.iter().map(header).collect(),
        query: matching.query.iter().map(query).collect(),
    }
}

pub(super) fn from_wire(wire: proto::RouteMatch) -> Result<RouteMatch, InvalidResource> {
    let headers = each(wire.headers, "headers", |header| {
        let name = header_name(&header.name).field("name")?;
        Ok(HeaderMatch { name, value: value_from_wire(header.value).field("value")? })
    })?;
    distinct(&headers, "headers", |header| header.name.clone())?;
    let query = each(wire.query, "query", |query| {
        if query.name.is_empty() {
            return Err(InvalidResource::new("is empty")).field("name");
        }
        Ok(QueryMatch { name: query.name.into(), value: value_from_wire(query.value).field("value")? })
    })?;
    distinct(&query, "query", |query| query.name.clone())?;
    let method = wire.method.map(|text| Method::from_bytes(text.as_bytes()).map_err(InvalidResource::new));
    Ok(RouteMatch {
        path: path_from_wire(wire.path).field("path")?,
        method: method.transpose().field("method")?,
        headers,
        query,
    })
}

fn path_from_wire(wire: Option<proto::PathMatch>) -> Result<PathMatch, InvalidResource> {
    match required(wire.and_then(|wire| wire.path))? {
        Path::Exact(path) => absolute(&path).map(PathMatch::Exact).field("exact"),
        Path::Prefix(path) if path.len() > 1 && path.ends_with('/') => {
            Err(InvalidResource::new(format_args!("{path:?} ends with '/'"))).field("prefix")
        }
        Path::Prefix(path) => absolute(&path).map(PathMatch::Prefix).field("prefix"),
        Path::Regex(pattern) => regex(&pattern).map(PathMatch::Regex).field("regex"),
        Path::Grpc(grpc) => {
            let value =
                |value: Option<_>, name| value.map(|value| value_from_wire(Some(value)).field(name)).transpose();
            let service = value(grpc.service, "service").field("grpc")?;
            Ok(PathMatch::Grpc { service, method: value(grpc.method, "method").field("grpc")? })
        }
    }
}

fn value_to_wire(value: &ValueMatch) -> proto::ValueMatch {
    let value = match value {
        ValueMatch::Exact(text) => Value::Exact(text.to_string()),
        ValueMatch::Regex(regex) => Value::Regex(regex.as_str().to_owned()),
    };
    proto::ValueMatch { value: Some(value) }
}

fn value_from_wire(wire: Option<proto::ValueMatch>) -> Result<ValueMatch, InvalidResource> {
    match required(wire.and_then(|wire| wire.value))? {
        Value::Exact(text) => Ok(ValueMatch::Exact(text.into())),
        Value::Regex(pattern) => regex(&pattern).map(ValueMatch::Regex).field("regex"),
    }
}

fn regex(pattern: &str) -> Result<Regex, InvalidResource> {
    Regex::new(pattern).map_err(InvalidResource::new)
}

fn absolute(path: &str) -> Result<Arc<str>, InvalidResource> {
    if path.starts_with('/') {
        Ok(path.into())
    } else {
        Err(InvalidResource::new(format_args!("{path:?} does not begin with '/'")))
    }
}

/// A header's name in lower case.
pub(super) fn header_name(name: &str) -> Result<HeaderName, InvalidResource> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|error| InvalidResource::new(format_args!("{name:?}: {error}")))
}
