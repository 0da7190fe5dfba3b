//! Routes.

use control_plane_model::{
    AttachedHost, Attachment, BackendKey, BackendTarget, ListenerKey, ResourceKey, Route, RouteKey, Rule, RuleAction,
    Timeouts, Unavailable, WeightedBackend,
};

use super::{
    duration::{duration_from_wire, duration_to_wire},
    error::{Field as _, InvalidResource, distinct, each, each_of_some, required},
    filter,
    listener::host,
    matching, policy,
};
use crate::proto::{self, rule::Action, weighted_backend::Target};

/// What [`WeightedBackend::weight`] may be at most (`HTTPBackendRef.weight`).
const WEIGHT_LIMIT: u32 = 1_000_000;

pub(super) fn to_wire(route: &Route) -> proto::Route {
    let host = |host: &AttachedHost| proto::AttachedHost {
        served: host.served.to_string(),
        declared: host.declared.to_string(),
    };
    let attachment = |attachment: &Attachment| proto::Attachment {
        listener: ResourceKey::Listener(attachment.listener.clone()).to_string(),
        hosts: attachment.hosts.iter().map(host).collect(),
    };
    proto::Route {
        created: route.created,
        attachments: route.attachments.iter().map(attachment).collect(),
        rules: route.rules.iter().map(rule_to_wire).collect(),
        policies: policy::keys_to_wire(&route.policies),
    }
}

pub(super) fn from_wire(key: RouteKey, wire: proto::Route) -> Result<Route, InvalidResource> {
    Ok(Route {
        key,
        created: wire.created,
        attachments: each(wire.attachments, "attachments", attachment_from_wire)?,
        rules: each(wire.rules, "rules", rule_from_wire)?,
        policies: policy::keys_from_wire(wire.policies)?,
    })
}

fn attachment_from_wire(wire: proto::Attachment) -> Result<Attachment, InvalidResource> {
    let hosts = each_of_some(wire.hosts, "hosts", |wire| {
        let served = host(&wire.served).field("served")?;
        Ok(AttachedHost { served, declared: host(&wire.declared).field("declared")? })
    })?;
    distinct(&hosts, "hosts", |host| host.served.clone())?;
    Ok(Attachment { listener: listener(&wire.listener).field("listener")?, hosts })
}

fn rule_to_wire(rule: &Rule) -> proto::Rule {
    let action = match &rule.action {
        RuleAction::Forward(backends) => {
            Action::Forward(proto::Forward { backends: backends.iter().map(backend_to_wire).collect() })
        }
        RuleAction::Fail(reason) => Action::Fail(unavailable_to_wire(*reason).into()),
    };
    let timeouts = (rule.timeouts != Timeouts::default()).then(|| proto::Timeouts {
        request: rule.timeouts.request.map(duration_to_wire),
        backend_request: rule.timeouts.backend_request.map(duration_to_wire),
    });
    proto::Rule {
        name: rule.name.as_deref().map(str::to_owned),
        matches: rule.matches.iter().map(matching::to_wire).collect(),
        filters: rule.filters.iter().map(filter::to_wire).collect(),
        action: Some(action),
        timeouts,
        policies: policy::keys_to_wire(&rule.policies),
    }
}

fn rule_from_wire(wire: proto::Rule) -> Result<Rule, InvalidResource> {
    let action = match required(wire.action).field("action")? {
        Action::Forward(forward) => {
            RuleAction::Forward(each(forward.backends, "backends", backend_from_wire).field("forward")?)
        }
        Action::Fail(reason) => RuleAction::Fail(unavailable_from_wire(reason).field("fail")?),
    };
    Ok(Rule {
        name: wire.name.map(Into::into),
        matches: each_of_some(wire.matches, "matches", matching::from_wire)?,
        filters: each(wire.filters, "filters", filter::from_wire)?,
        action,
        timeouts: timeouts_from_wire(wire.timeouts.unwrap_or_default()).field("timeouts")?,
        policies: policy::keys_from_wire(wire.policies)?,
    })
}

fn backend_to_wire(backend: &WeightedBackend) -> proto::WeightedBackend {
    let target = match &backend.target {
        BackendTarget::Backend(key) => Target::Backend(ResourceKey::Backend(key.clone()).to_string()),
        BackendTarget::Invalid(reason) => Target::Invalid(unavailable_to_wire(*reason).into()),
    };
    proto::WeightedBackend {
        weight: backend.weight,
        target: Some(target),
        filters: backend.filters.iter().map(filter::to_wire).collect(),
    }
}

fn backend_from_wire(wire: proto::WeightedBackend) -> Result<WeightedBackend, InvalidResource> {
    if wire.weight > WEIGHT_LIMIT {
        return Err(InvalidResource::new(format_args!("{} is above {WEIGHT_LIMIT}", wire.weight))).field("weight");
    }
    let target = match required(wire.target).field("target")? {
        Target::Backend(key) => BackendTarget::Backend(backend(&key).field("backend")?),
        Target::Invalid(reason) => BackendTarget::Invalid(unavailable_from_wire(reason).field("invalid")?),
    };
    Ok(WeightedBackend { weight: wire.weight, target, filters: each(wire.filters, "filters", filter::from_wire)? })
}

fn unavailable_to_wire(reason: Unavailable) -> proto::Unavailable {
    match reason {
        Unavailable::BackendNotFound => proto::Unavailable::BackendNotFound,
        Unavailable::InvalidKind => proto::Unavailable::InvalidKind,
        Unavailable::RefNotPermitted => proto::Unavailable::RefNotPermitted,
        Unavailable::UnsupportedProtocol => proto::Unavailable::UnsupportedProtocol,
        Unavailable::UnsupportedValue => proto::Unavailable::UnsupportedValue,
        Unavailable::InvalidFilter => proto::Unavailable::InvalidFilter,
    }
}

fn unavailable_from_wire(reason: i32) -> Result<Unavailable, InvalidResource> {
    match proto::Unavailable::try_from(reason) {
        Ok(proto::Unavailable::BackendNotFound) => Ok(Unavailable::BackendNotFound),
        Ok(proto::Unavailable::InvalidKind) => Ok(Unavailable::InvalidKind),
        Ok(proto::Unavailable::RefNotPermitted) => Ok(Unavailable::RefNotPermitted),
        Ok(proto::Unavailable::UnsupportedProtocol) => Ok(Unavailable::UnsupportedProtocol),
        Ok(proto::Unavailable::UnsupportedValue) => Ok(Unavailable::UnsupportedValue),
        Ok(proto::Unavailable::InvalidFilter) => Ok(Unavailable::InvalidFilter),
        Ok(proto::Unavailable::Unspecified) | Err(_) => Err(InvalidResource::unknown()),
    }
}

fn timeouts_from_wire(wire: proto::Timeouts) -> Result<Timeouts, InvalidResource> {
    Ok(Timeouts {
        request: wire.request.map(duration_from_wire).transpose().field("request")?,
        backend_request: wire.backend_request.map(duration_from_wire).transpose().field("backend_request")?,
    })
}

fn listener(text: &str) -> Result<ListenerKey, InvalidResource> {
    match text.parse() {
        Ok(ResourceKey::Listener(key)) => Ok(key),
        _ => Err(InvalidResource::new(format_args!("{text:?} is not the key of a listener"))),
    }
}

fn backend(text: &str) -> Result<BackendKey, InvalidResource> {
    match text.parse() {
        Ok(ResourceKey::Backend(key)) => Ok(key),
        _ => Err(InvalidResource::new(format_args!("{text:?} is not the key of a backend"))),
    }
}
