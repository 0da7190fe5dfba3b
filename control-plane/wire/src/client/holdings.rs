//! What a proxy holds: the version of each object, and which ones it refuses. Pure; no IO.
//!
//! Invariants: a version is recorded once the sink has answered, so that a lost transaction leaves no trace. A refused
//! object is offered again with each later transaction, as what was in its way may be gone, so that the sink's last
//! answer is all that it refuses. Whatever a refusal left in the sink, a removal or another version still reaches it.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_model::{Delta, Resource, ResourceKey};

use super::Refused;
use crate::{ERROR_LIMIT, PART_SIZE, REFUSALS_LIMIT, Version, proto, resource};

/// One form of an object: its content's hash, and how new it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    version: Version,
    revision: u64,
}

/// What a proxy holds.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// Of what the sink took.
    forms: BTreeMap<ResourceKey, Form>,
    /// The sink's last answer.
    refused: BTreeMap<ResourceKey, String>,
    /// Objects of `refused` that it has not taken in this form.
    declined: BTreeMap<ResourceKey, (Form, Resource)>,
    /// Objects that never reach the sink, by the key's text, as it may be of a kind that this version does not know.
    undecodable: BTreeMap<String, String>,
}

/// The parts of one transaction that have come in so far.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    upserted: BTreeMap<ResourceKey, (Form, Resource)>,
    removed: BTreeSet<ResourceKey>,
    undecodable: Vec<(String, String)>,
    /// Every key of the transaction.
    mentioned: Vec<String>,
}

/// A transaction as the sink is to apply it.
#[derive(Debug)]
pub(super) struct Offer {
    /// May be empty.
    pub(super) delta: Delta,
    /// Of `delta.upserted`.
    pub(super) forms: Vec<Form>,
}

impl Holdings {
    /// All that is held, in messages for the control plane; at least one, the last marked.
    pub(super) fn known(&self) -> Vec<proto::Known> {
        let mut messages = vec![proto::Known::default()];
        let mut size = 0;
        let mut forms: BTreeMap<&ResourceKey, &Form> = self.forms.iter().collect();
        forms.extend(self.declined.iter().map(|(key, (form, _))| (key, form)));
        for (key, form) in forms {
            let version = form.version.as_bytes().to_vec().into();
            let known = proto::KnownResource { key: key.to_string(), version, revision: form.revision };
            size += known.key.len() + known.version.len();
            if size > PART_SIZE {
                size = 0;
                messages.push(proto::Known::default());
            }
            if let Some(message) = messages.last_mut() {
                message.resources.push(known);
            }
        }
        if let Some(message) = messages.last_mut() {
            message.last = true;
        }
        messages
    }

    /// Adds one object to the transaction.
    pub(super) fn receive(&self, incoming: &mut Incoming, wire: proto::Resource) {
        match self.decode(&wire) {
            Ok(None) => {}
            Ok(Some((form, object))) => drop(incoming.upserted.insert(object.key(), (form, object))),
            Err(error) => incoming.undecodable.push((wire.key.clone(), error)),
        }
        incoming.mentioned.push(wire.key);
    }

    /// Adds one removal to the transaction.
    pub(super) fn receive_removed(incoming: &mut Incoming, key: String) {
        if let Ok(key) = key.parse() {
            incoming.removed.insert(key);
        }
        incoming.mentioned.push(key);
    }

    /// The object with its form, or `None` where the proxy has this very version.
    fn decode(&self, wire: &proto::Resource) -> Result<Option<(Form, Resource)>, String> {
        let kind = wire.key.split('/').next().unwrap_or_default();
        if !resource::KINDS.contains(&kind) {
            return Err(format!("unknown kind {kind:?}: this proxy is older than its control plane"));
        }
        let key: ResourceKey = wire.key.parse().map_err(|error| format!("{error}"))?;
        let version = Version::from_bytes(&wire.version).ok_or("version is not 16 bytes")?;
        if self.forms.get(&key).is_some_and(|held| held.version == version) && !self.declined.contains_key(&key) {
            return Ok(None);
        }
        let object = resource::decode(&key, &wire.body).map_err(|error| error.to_string())?;
        Ok(Some((Form { version, revision: wire.revision }, object)))
    }

    /// The transaction is complete: what the sink is to apply.
    pub(super) fn offer(&mut self, mut incoming: Incoming) -> Offer {
        let mut removed: Vec<ResourceKey> = Vec::new();
        for key in incoming.removed {
            if self.forms.remove(&key).is_some() || self.declined.contains_key(&key) {
                removed.push(key);
            }
        }
        for key in &incoming.mentioned {
            self.undecodable.remove(key);
            if let Ok(key) = key.parse() {
                self.declined.remove(&key);
            }
        }
        self.undecodable.extend(incoming.undecodable);
        incoming.upserted.append(&mut self.declined);
        // Sorted by key, and so by kind: no object comes before one that it uses.
        let (forms, upserted) = incoming.upserted.into_values().unzip();
        Offer { delta: Delta { upserted, removed }, forms }
    }

    /// Records that the sink has applied `upserted`, which had these `forms`, less what it `refused`.
    pub(super) fn settle(&mut self, upserted: Vec<Resource>, forms: Vec<Form>, refused: Vec<Refused>) {
        self.refused = refused.into_iter().map(|refused| (refused.key, refused.error)).collect();
        for (object, form) in upserted.into_iter().zip(forms) {
            let key = object.key();
            if self.refused.contains_key(&key) {
                self.declined.insert(key, (form, object));
            } else {
                self.forms.insert(key, form);
            }
        }
    }

    /// Everything that is refused at present, for an Ack.
    pub(super) fn refusals(&self) -> Vec<proto::Refusal> {
        let count = self.refused.len() + self.undecodable.len();
        if count > REFUSALS_LIMIT {
            tracing::warn!(refused = count, reported = REFUSALS_LIMIT, "too many refused objects to report");
        }
        let refused = self.refused.iter().map(|(key, error)| (key.to_string(), error));
        let undecodable = self.undecodable.iter().map(|(key, error)| (key.clone(), error));
        let refusal =
            |(key, error): (String, &String)| proto::Refusal { key, error: error.chars().take(ERROR_LIMIT).collect() };
        refused.chain(undecodable).take(REFUSALS_LIMIT).map(refusal).collect()
    }
}
