//! From the folder's content to the engine's configuration: the same translation as in the control plane, with what only
//! standalone mode has (the demo backend). Pure, so that `--check` runs it without an engine.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use control_plane_model::{Delta, ObjectName, ResourceKey, Snapshot};
use control_plane_translate::{self as translate, Change, Kind, Mode, Object, Options, Translator};

use super::{
    folder::{Files, Folder},
    kinds::ObjectId,
    locate,
    node::{Node, Position},
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
        let refused = self.translator.problems();
        let refused = refused.iter().filter(|problem| !is_consequence(problem, &refused)).map(|problem| {
            let id = ObjectId { kind: problem.kind, name: problem.name.clone() };
            if problem.section.is_empty() && problem.reason == "NoMatchingParent" {
                return self.nobodys(&id, problem.message.clone());
            }
            let text = format!("{} ({}): {}", problem.condition, problem.reason, problem.message);
            let field = Some(problem.section.clone()).filter(|section| !section.is_empty());
            let place = |document: &Node| locate::refusal(document, &problem.section, &problem.message);
            Problem { field, ..self.problem(&id, text, place) }
        });
        let sets = self
            .folder
            .objects()
            .map(|declared| &declared.id)
            .filter(|id| id.kind == Kind::ListenerSet && self.translator.status(id.kind, &id.name).is_none());
        let sets = sets.map(|id| self.nobodys(id, "its parentRef names no Gateway that is here".to_owned()));
        self.file_problems.iter().cloned().chain(refused).chain(sets).collect()
    }

    /// The problem of an object that belongs to nothing in the folder: another controller's in a cluster, here a slip.
    fn nobodys(&self, id: &ObjectId, message: String) -> Problem {
        let field = match id.kind {
            Kind::Gateway => "gatewayClassName",
            Kind::ListenerSet => "parentRef",
            _ => "parentRefs",
        };
        let place = |document: &Node| locate::field(document, field);
        Problem { field: Some(format!("spec.{field}")), ..self.problem(id, message, place) }
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
            ResourceKey::Policy(policy) => (Kind::of_policy(policy.kind), &policy.name),
            ResourceKey::Backend(backend) | ResourceKey::Endpoints(backend) => (Kind::Service, &backend.service),
            ResourceKey::Route(route) => match route.kind {
                control_plane_model::RouteKind::Http => (Kind::HttpRoute, &route.name),
                control_plane_model::RouteKind::Grpc => (Kind::GrpcRoute, &route.name),
            },
        };
        let section = match key {
            ResourceKey::Listener(listener) => Some(listener.name.to_string()),
            _ => None,
        };
        let place = |document: &Node| locate::refusal(document, section.as_deref().unwrap_or_default(), "");
        Problem {
            field: section.clone(),
            ..self.problem(&ObjectId { kind, name: name.clone() }, error.to_owned(), place)
        }
    }

    /// A problem of an object, at the position that `place` finds in its document.
    fn problem(&self, id: &ObjectId, message: String, place: impl FnOnce(&Node) -> Position) -> Problem {
        let found = self.folder.place(id).map(|(file, document)| (file, place(document)));
        Problem {
            file: found.map(|(file, _)| Path::to_owned(file)),
            line: found.map(|(_, position)| position.line),
            column: found.map(|(_, position)| position.column),
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

/// Whether a condition says only that another one of the same list is not as it should be.
fn is_consequence(problem: &translate::Problem, all: &[translate::Problem]) -> bool {
    let same_object = |other: &&translate::Problem| other.kind == problem.kind && other.name == problem.name;
    match (problem.condition.as_str(), problem.reason.as_str()) {
        ("Programmed", _) => all
            .iter()
            .filter(same_object)
            .any(|other| other.section == problem.section && other.condition != problem.condition),
        (_, "ListenersNotResolved" | "ListenersNotValid") => {
            all.iter().filter(same_object).any(|other| !other.section.is_empty())
        }
        _ => false,
    }
}
