//! The precedence of matches (`HTTPRouteRule.matches`, `GRPCRouteRule.matches`).
//!
//! HTTPRoute: an exact path, then a regular expression, then the longest prefix; then a match on the method; then the
//! most headers; then the most query parameters. The API leaves the place of regular expressions to us: between exact
//! and prefix, as Envoy Gateway and Cilium have it, and of two the longer pattern first.
//! GRPCRoute: the longest service, then the longest method, then the most headers; exact names before regular expressions.
//! Ties: the older route, then `namespace/name` by bytes, then HTTPRoute before GRPCRoute, then the order in the route.

use std::{cmp::Ordering, sync::Arc};

use control_plane_model::{PathMatch, Route, RouteMatch, ValueMatch};

/// How specific a match is. Less is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    path: PathRank,
    /// For gRPC, how specific the method's name is.
    grpc_method: NameRank,
    any_method: bool,
    without_headers: usize,
    without_query: usize,
}

/// Less is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    /// The whole path.
    Exact,
    /// A pattern, by its length.
    Regex(std::cmp::Reverse<usize>),
    /// A prefix, by its length.
    Prefix(std::cmp::Reverse<usize>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NameRank {
    Exact(std::cmp::Reverse<usize>),
    Regex(std::cmp::Reverse<usize>),
    Any,
}

impl NameRank {
    fn of(name: Option<&ValueMatch>) -> Self {
        match name {
            Some(ValueMatch::Exact(text)) => Self::Exact(std::cmp::Reverse(text.len())),
            Some(ValueMatch::Regex(regex)) => Self::Regex(std::cmp::Reverse(regex.as_str().len())),
            None => Self::Any,
        }
    }
}

impl Rank {
    pub(super) fn of(wanted: &RouteMatch) -> Self {
        use std::cmp::Reverse;
        let (path, grpc_method) = match &wanted.path {
            PathMatch::Exact(_) => (PathRank::Exact, NameRank::Any),
            PathMatch::Prefix(prefix) => (PathRank::Prefix(Reverse(prefix.trim_end_matches('/').len())), NameRank::Any),
            PathMatch::Regex(regex) => (PathRank::Regex(Reverse(regex.as_str().len())), NameRank::Any),
            PathMatch::Grpc { service: Some(ValueMatch::Exact(_)), method: Some(ValueMatch::Exact(_)) } => {
                (PathRank::Exact, NameRank::Any)
            }
            PathMatch::Grpc { service, method } => {
                let path = match service {
                    // As `/service` is a prefix of the path.
                    Some(ValueMatch::Exact(service)) => PathRank::Prefix(Reverse(service.len() + 1)),
                    Some(ValueMatch::Regex(service)) => PathRank::Regex(Reverse(service.as_str().len())),
                    None => PathRank::Prefix(Reverse(0)),
                };
                (path, NameRank::of(method.as_ref()))
            }
        };
        Self {
            path,
            grpc_method,
            any_method: wanted.method.is_none(),
            without_headers: usize::MAX - wanted.headers.len(),
            without_query: usize::MAX - wanted.query.len(),
        }
    }
}

/// Where a match stands among those of the same rank.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) route: Arc<Route>,
    rule: usize,
    index: usize,
}

impl Order {
    pub(super) fn new(route: &Arc<Route>, rule: usize, index: usize) -> Self {
        Self { route: route.clone(), rule, index }
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let (left, right) = (&self.route, &other.route);
        left.created
            .cmp(&right.created)
            .then_with(|| full_name(left).cmp(full_name(right)))
            .then_with(|| left.key.kind.cmp(&right.key.kind))
            .then_with(|| self.rule.cmp(&other.rule))
            .then_with(|| self.index.cmp(&other.index))
    }
}

/// The bytes of `namespace/name`.
fn full_name(route: &Route) -> impl Iterator<Item = u8> + '_ {
    route.key.name.namespace.bytes().chain([b'/']).chain(route.key.name.name.bytes())
}
