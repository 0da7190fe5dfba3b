//! Keeps the inputs and what was made of them, and brings both from one moment to the next.

use std::collections::BTreeMap;

use control_plane_model::{Delta, GatewayKey, ObjectName, Snapshot};

use crate::{Change, Deployment, Kind, Problem, StatusUpdate};

/// Where the objects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From a Kubernetes API server: what was not watched does not exist.
    Cluster,
    /// From files: every Gateway is ours where no GatewayClass is given, `spec.addresses` are bound by the proxy itself, a
    /// Service may name its endpoints in the annotation `nebula.dev/endpoints`.
    Standalone,
}

/// What a [`Translator`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the objects come from.
    pub mode: Mode,
    /// GatewayClasses with this `spec.controllerName` are ours.
    pub controller_name: String,
}

/// What a batch of changes does.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The change of the snapshot.
    pub delta: Delta,
    /// Statuses that are now different from what was said before.
    pub statuses: Vec<StatusUpdate>,
    /// Whether [`Translator::deployments`] is now different.
    pub deployments_changed: bool,
}

/// Custom resources to configuration, incrementally.
pub struct Translator {
    options: Options,
    snapshot: Snapshot,
    statuses: BTreeMap<(Kind, ObjectName), StatusUpdate>,
    deployments: BTreeMap<GatewayKey, Deployment>,
}

impl Translator {
    /// Knows no object yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            snapshot: Snapshot::default(),
            statuses: BTreeMap::new(),
            deployments: BTreeMap::new(),
        }
    }

    /// Takes a batch of changes as one moment.
    pub fn apply(&mut self, changes: Vec<Change>) -> Output {
        let _ = (changes, &self.options);
        Output::default()
    }

    /// The configuration of this moment.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What the provisioner is to run for each Gateway of ours. A Gateway that is missing here is to have nothing.
    pub fn deployments(&self) -> &BTreeMap<GatewayKey, Deployment> {
        &self.deployments
    }

    /// Every status of this moment, for a writer that begins now.
    pub fn statuses(&self) -> impl Iterator<Item = &StatusUpdate> {
        self.statuses.values()
    }

    /// The status of one object, for a writer that saw it change; `None` where it is not ours.
    pub fn status(&self, kind: Kind, name: &ObjectName) -> Option<&StatusUpdate> {
        self.statuses.get(&(kind, name.clone()))
    }

    /// Everything that is refused, by object.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }
}
