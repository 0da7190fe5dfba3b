//! From the folder's content to the engine's configuration: the same translation as in the control plane, with what only
//! standalone mode has (the demo backend). Pure, so that `--check` runs it without an engine.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use control_plane_model::{Delta, ObjectName, ResourceKey, Snapshot};
use control_plane_translate::{Change, Kind, Mode, Object, Options, Translator};

use super::{
    folder::{Files, Folder},
    kinds::ObjectId,
};
use crate::{demo, problems::Problem};

/// The controller whose GatewayClasses are served.
pub const CONTROLLER_NAME: &str = "nebula.dev/gateway-controller";

/// Everything between the files and the engine.
pub struct Inputs {
    folder: Folder,
    translator: Translator,
    demo_address: SocketAddr,
    /// Services that the demo backend serves.
    demo_services: BTreeSet<ObjectName>,
    /// What is wrong with the files as such.
    file_problems: Vec<Problem>,
}

impl Inputs {
    /// No files yet. Demo Services are led to `demo_address`.
    pub fn new(demo_address: SocketAddr) -> Self {
        let options = Options { mode: Mode::Standalone, controller_name: CONTROLLER_NAME.to_owned() };
        Self {
            folder: Folder::default(),
            translator: Translator::new(options),
            demo_address,
            demo_services: BTreeSet::new(),
            file_problems: Vec::new(),
        }
    }

    /// Takes `files` as the folder's whole content; returns what the engine is to change.
    pub fn update(&mut self, files: Files) -> Delta {
        let update = self.folder.update(files);
        self.file_problems = update.problems;
        if update.changes.is_empty() {
            return Delta::default();
        }
        let changes = self.with_demo_backends(update.changes);
        self.translator.apply(changes).delta
    }

    /// Whether a file that declares something is missing or empty in `files`.
    pub fn would_lose_a_file(&self, files: &Files) -> bool {
        self.folder.would_lose_a_file(files)
    }

    /// The configuration as it is now.
    pub fn snapshot(&self) -> &Snapshot {
        self.translator.snapshot()
    }

    /// Everything that is wrong with the files and the objects in them.
    pub fn problems(&self) -> Vec<Problem> {
        let refused = self.translator.problems().into_iter().map(|problem| {
            let id = ObjectId { kind: problem.kind, name: problem.name };
            let text = format!("{} ({}): {}", problem.condition, problem.reason, problem.message);
            Problem { field: Some(problem.section).filter(|section| !section.is_empty()), ..self.problem(&id, text) }
        });
        self.file_problems.iter().cloned().chain(refused).collect()
    }

    /// The problem of an object that the engine refuses with `error`.
    pub fn refusal(&self, key: &ResourceKey, error: &str) -> Problem {
        let (kind, name) = match key {
            ResourceKey::Gateway(gateway) => (Kind::Gateway, &gateway.0),
            ResourceKey::Listener(listener) => match &listener.listener_set {
                Some(set) => (Kind::ListenerSet, set),
                None => (Kind::Gateway, &listener.gateway.0),
            },
            ResourceKey::Certificate(certificate) => (Kind::Secret, &certificate.0),
            ResourceKey::Backend(backend) | ResourceKey::Endpoints(backend) => (Kind::Service, &backend.service),
            ResourceKey::Route(route) => match route.kind {
                control_plane_model::RouteKind::Http => (Kind::HttpRoute, &route.name),
                control_plane_model::RouteKind::Grpc => (Kind::GrpcRoute, &route.name),
            },
        };
        self.problem(&ObjectId { kind, name: name.clone() }, error.to_owned())
    }

    fn problem(&self, id: &ObjectId, message: String) -> Problem {
        let place = self.folder.place(id);
        Problem {
            file: place.map(|(file, _)| Path::to_owned(file)),
            line: place.map(|(_, position)| position.line),
            object: Some(id.to_string()),
            message,
            ..Problem::default()
        }
    }

    /// Adds the endpoints of Services that ask for the demo backend.
    fn with_demo_backends(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let mut all = Vec::with_capacity(changes.len());
        for change in changes {
            let (service, slice) = match &change {
                Change::Upsert(Object::Service(service)) => {
                    let slice = demo::is_asked_for(service).then(|| demo::endpoint_slice(service, self.demo_address));
                    (ObjectName::clone(&Object::Service(service.clone()).name()), slice)
                }
                Change::Remove(Kind::Service, name) => (name.clone(), None),
                _ => {
                    all.push(change);
                    continue;
                }
            };
            all.push(change);
            if let Some(slice) = slice {
                self.demo_services.insert(service);
                all.push(Change::Upsert(Object::EndpointSlice(slice.into())));
            } else if self.demo_services.remove(&service) {
                let slice = ObjectName::new(service.namespace, demo::slice_name(&service.name));
                all.push(Change::Remove(Kind::EndpointSlice, slice));
            }
        }
        all
    }
}
