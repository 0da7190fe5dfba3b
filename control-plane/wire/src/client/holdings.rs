//! What a proxy holds: the version of each object, and which ones it refuses. Pure; no IO.
//!
//! Invariant: a version is recorded once the sink has taken the object, so that a refused one comes again with the next
//! stream, and a lost transaction leaves no trace.

use std::collections::BTreeMap;

use control_plane_model::{Delta, ResourceKey};

use super::Refused;
use crate::{PART_SIZE, Version, proto, resource};

/// How many refusals an Ack lists; with [`ERROR_LIMIT`] it stays below the message limit.
const REFUSALS_LIMIT: usize = 2000;

/// Longest error that is reported, characters.
const ERROR_LIMIT: usize = 300;

/// What a proxy holds.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    versions: BTreeMap<ResourceKey, Version>,
    /// By the key's text, as it may be of a kind that this version does not know.
    refused: BTreeMap<String, String>,
}

/// The parts of one transaction that have come in so far.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// For the sink.
    pub(super) delta: Delta,
    /// Of the objects in `delta`.
    versions: Vec<(ResourceKey, Version)>,
    /// Objects that never reach the sink.
    undecodable: Vec<(String, String)>,
    /// Objects that are as the proxy has them already, and objects that are gone.
    settled: Vec<String>,
}

impl Holdings {
    /// All that is held, in messages for the control plane; at least one, the last marked.
    pub(super) fn known(&self) -> Vec<proto::Known> {
        let mut messages = vec![proto::Known::default()];
        let mut size = 0;
        for (key, version) in &self.versions {
            let known = proto::KnownResource { key: key.to_string(), version: version.as_bytes().to_vec().into() };
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
            Ok(None) => incoming.settled.push(wire.key),
            Ok(Some((version, object))) => {
                incoming.versions.push((object.key(), version));
                incoming.delta.upserted.push(object);
            }
            Err(error) => incoming.undecodable.push((wire.key, error)),
        }
    }

    /// Adds one removal to the transaction.
    pub(super) fn receive_removed(&self, incoming: &mut Incoming, key: String) {
        if let Ok(key) = key.parse()
            && self.versions.contains_key(&key)
        {
            incoming.delta.removed.push(key);
        }
        incoming.settled.push(key);
    }

    /// The object, or `None` where the proxy has this very version.
    fn decode(&self, wire: &proto::Resource) -> Result<Option<(Version, control_plane_model::Resource)>, String> {
        let kind = wire.key.split('/').next().unwrap_or_default();
        if !resource::KINDS.contains(&kind) {
            return Err(format!("unknown kind {kind:?}: this proxy is older than its control plane"));
        }
        let key: ResourceKey = wire.key.parse().map_err(|error| format!("{error}"))?;
        let version = Version::from_bytes(&wire.version).ok_or("version is not 16 bytes")?;
        if self.versions.get(&key) == Some(&version) {
            return Ok(None);
        }
        let object = resource::decode(&key, &wire.body).map_err(|error| error.to_string())?;
        Ok(Some((version, object)))
    }

    /// Records a transaction after the sink has applied it and `refused` some of it.
    pub(super) fn settle(&mut self, incoming: Incoming, removed: &[ResourceKey], refused: Vec<Refused>) {
        for key in removed {
            self.versions.remove(key);
        }
        for key in incoming.settled {
            self.refused.remove(&key);
        }
        let mut refused: BTreeMap<ResourceKey, String> =
            refused.into_iter().map(|refused| (refused.key, refused.error)).collect();
        for (key, version) in incoming.versions {
            if let Some(error) = refused.remove(&key) {
                self.refused.insert(key.to_string(), error);
            } else {
                self.refused.remove(&key.to_string());
                self.versions.insert(key, version);
            }
        }
        // An object of an earlier transaction that this one made impossible (a listener whose certificate changed).
        self.refused.extend(refused.into_iter().map(|(key, error)| (key.to_string(), error)));
        self.refused.extend(incoming.undecodable);
    }

    /// Everything that is refused at present, for an Ack.
    pub(super) fn refusals(&self) -> Vec<proto::Refusal> {
        if self.refused.len() > REFUSALS_LIMIT {
            tracing::warn!(
                refused = self.refused.len(),
                reported = REFUSALS_LIMIT,
                "too many refused objects to report"
            );
        }
        let refusal = |(key, error): (&String, &String)| proto::Refusal {
            key: key.clone(),
            error: error.chars().take(ERROR_LIMIT).collect(),
        };
        self.refused.iter().take(REFUSALS_LIMIT).map(refusal).collect()
    }
}
