//! Routes: which requests go where, and what happens to them on the way.

use std::{sync::Arc, time::Duration};

use crate::{BackendKey, Filter, HostPattern, ListenerKey, PolicyKey, RouteKey, RouteMatch};

/// One HTTPRoute or GRPCRoute. It points to its listeners; no listener lists its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub key: RouteKey,
    /// creationTimestamp in seconds since 1970; 0 where there is none. The older route wins a tie, then the name.
    pub created: i64,
    /// Where it is attached; a route may be attached to several Gateways.
    pub attachments: Vec<Attachment>,
    /// Its rules, in the user's order.
    pub rules: Vec<Rule>,
    /// For all of its rules; at most one of a kind, sorted.
    pub policies: Vec<PolicyKey>,
}

/// A listener that serves a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The listener.
    pub listener: ListenerKey,
    /// The hosts for which it does; never empty, no `served` twice.
    pub hosts: Vec<AttachedHost>,
}

/// One host of an attached route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachedHost {
    /// What the route serves here: its own hostname intersected with the listener's.
    pub served: HostPattern,
    /// The route's own hostname, by which routes are ranked where they serve the same hosts
    /// (feature `GatewayRouteHostnameIntersectionPrecedence`).
    pub declared: HostPattern,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The user's name for it.
    pub name: Option<Arc<str>>,
    /// Any of these; never empty.
    pub matches: Vec<RouteMatch>,
    /// For every backend of the rule.
    pub filters: Vec<Filter>,
    /// What is done with the request.
    pub action: RuleAction,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// For this rule; at most one of a kind, sorted.
    pub policies: Vec<PolicyKey>,
}

/// What a rule does with a request that its filters let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// Sends it to one of these by weight. Empty, or every weight 0: answers 500.
    Forward(Vec<WeightedBackend>),
    /// Answers 500: the rule cannot be honoured as it is written.
    Fail(Unavailable),
}

/// A backend with its share of a rule's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    /// Share, relative to the sum over the rule; 0 for none. At most 1,000,000.
    pub weight: u32,
    /// Where the share goes.
    pub target: BackendTarget,
    /// For this backend alone; applied after the rule's.
    pub filters: Vec<Filter>,
}

/// Where a share of the requests goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// To a backend; 503 while it has no endpoints.
    Backend(BackendKey),
    /// Nowhere: this share answers 500 (`HTTPBackendRef`: invalid references).
    Invalid(Unavailable),
}

/// Why a rule or a backend reference cannot be honoured. The words are the Gateway API's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unavailable {
    /// The Service or its port does not exist.
    BackendNotFound,
    /// The reference names a kind other than Service.
    InvalidKind,
    /// No ReferenceGrant allows it.
    RefNotPermitted,
    /// The Service's `appProtocol` is not one that the route can speak.
    UnsupportedProtocol,
    /// A filter or a value that this version does not support.
    UnsupportedValue,
    /// A filter names an object that does not exist, or is not valid.
    InvalidFilter,
}

/// Limits of one request; `None` for none (a Gateway API duration of `0s`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's head received to the response's head sent, all attempts included.
    pub request: Option<Duration>,
    /// One attempt: from the request sent to the response received whole.
    pub backend_request: Option<Duration>,
}
