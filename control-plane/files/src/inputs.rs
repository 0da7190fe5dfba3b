//! From the folder's content to the engine's configuration: the same translation as in the control plane, with what only
//! standalone mode has (the demo backend). Pure, so that `--check` runs it without an engine.

use std::{collections::BTreeSet, net::SocketAddr, path::Path};

use control_plane_model::{Delta, ObjectName, ResourceKey, Snapshot};
use control_plane_translate::{self as translate, Change, Kind, Mode, Object, Options, StatusUpdate, Translator};

use crate::{
    Problem, demo_backend,
    folder::{Files, Folder, Purpose},
    kinds::ObjectId,
    locate,
    node::{Node, Position},
};

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
    /// No files yet, and what they declare is to be served. Demo Services are led to `demo_address`.
    pub fn new(demo_address: SocketAddr) -> Self {
        Self::for_purpose(Purpose::Serving, demo_address)
    }

    /// No files yet, and what they declare is only looked at.
    pub fn for_inspection() -> Self {
        Self::for_purpose(Purpose::Inspection, SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    fn for_purpose(purpose: Purpose, demo_address: SocketAddr) -> Self {
        let options = Options { mode: Mode::Standalone, controller_name: CONTROLLER_NAME.to_owned() };
        Self {
            folder: Folder::new(purpose),
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

    /// The objects that the files declare.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.folder.objects().map(|declared| &declared.object)
    }

    /// The objects that the files declare, with their documents.
    pub fn documents(&self) -> impl Iterator<Item = (&ObjectId, &Node)> {
        self.folder.objects().map(|declared| (&declared.id, &*declared.document))
    }

    /// Objects that were passed over, as they say nothing to a gateway.
    pub fn foreign(&self) -> usize {
        self.folder.foreign()
    }

    /// Goes on as if these objects were there too. They have no file.
    pub fn assume(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.translator.apply(objects.into_iter().map(Change::Upsert).collect());
    }

    /// The status of every object that is ours.
    pub fn statuses(&self) -> impl Iterator<Item = &StatusUpdate> {
        self.translator.statuses()
    }

    /// Everything that is wrong with the files and the objects in them.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.refusals();
        problems.extend(self.strangers());
        problems
    }

    /// What is wrong with the files, and with the objects that are ours; each once.
    pub fn refusals(&self) -> Vec<Problem> {
        let mut problems = self.file_problems.clone();
        let refused = self.translator.problems();
        for problem in &refused {
            if !is_stranger(problem) && !is_consequence(problem, &refused) {
                problems.extend(self.object_problems(problem));
            }
        }
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert(problem.clone()));
        problems
    }

    /// Objects that belong to nothing that is here: in a cluster they may be another controller's.
    pub fn strangers(&self) -> Vec<Problem> {
        let strangers = self.translator.problems().into_iter().filter(is_stranger).map(|problem| {
            let id = ObjectId { kind: problem.kind, name: problem.name };
            self.nobodys(&id, problem.message)
        });
        let sets = self
            .folder
            .objects()
            .map(|declared| &declared.id)
            .filter(|id| id.kind == Kind::ListenerSet && self.translator.status(id.kind, &id.name).is_none());
        let sets = sets.map(|id| self.nobodys(id, "its parentRef names no Gateway that is here".to_owned()));
        strangers.chain(sets).collect()
    }

    /// A refused condition, as a problem for each place that its message speaks of.
    fn object_problems(&self, problem: &translate::Problem) -> Vec<Problem> {
        let id = ObjectId { kind: problem.kind, name: problem.name.clone() };
        let file = self.folder.place(&id);
        let tell = |message: &str| {
            let place = file.map(|(_, document)| locate::refusal(document, &problem.section, message));
            let path = place.as_ref().map(|place| place.path.as_str()).unwrap_or_default();
            let rest = place.as_ref().map_or(message, |place| place.rest);
            let text = format!("{} ({}): {rest}", problem.condition, problem.reason);
            let of_listener = matches!(problem.kind, Kind::Gateway | Kind::ListenerSet);
            let field = match (path, problem.section.as_str()) {
                ("", "") => None,
                ("", section) => Some(section.to_owned()),
                (path, section) if section.is_empty() || !of_listener => Some(format!("spec.{path}")),
                (path, listener) => Some(format!("{listener}: {path}")),
            };
            Problem { field, ..self.problem(&id, text, |document| place.map_or(document.position, |it| it.position)) }
        };
        parts(&problem.message).into_iter().map(tell).collect()
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
        let place = |document: &Node| locate::refusal(document, section.as_deref().unwrap_or_default(), "").position;
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
                    let slice = demo_backend::is_asked_for(service)
                        .then(|| demo_backend::endpoint_slice(service, self.demo_address));
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
                let slice = ObjectName::new(service.namespace, demo_backend::slice_name(&service.name));
                all.push(Change::Remove(Kind::EndpointSlice, slice));
            }
        }
        all
    }
}

/// Whether a problem is of an object that has no status of ours.
fn is_stranger(problem: &translate::Problem) -> bool {
    problem.section.is_empty() && problem.reason == "NoMatchingParent"
}

/// The parts of a message that speak of several rules, each beginning with its path.
fn parts(message: &str) -> Vec<&str> {
    const RULE: &str = "rules[";
    let begins = message.find(RULE).filter(|at| *at == 0 || message.starts_with("Dropped Rule"));
    let Some(begin) = begins else { return vec![message] };
    let rest = message.get(begin..).unwrap_or(message);
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in rest.match_indices("; rules[") {
        parts.extend(rest.get(start..at));
        start = at + "; ".len();
    }
    parts.extend(rest.get(start..));
    parts
}

/// Whether a condition says only that another one of the same list is not as it should be.
fn is_consequence(problem: &translate::Problem, all: &[translate::Problem]) -> bool {
    let same_object = |other: &&translate::Problem| other.kind == problem.kind && other.name == problem.name;
    match (problem.condition.as_str(), problem.reason.as_str()) {
        ("Programmed", _) => all
            .iter()
            .filter(same_object)
            .any(|other| other.section == problem.section && other.condition != problem.condition),
        // The policy itself says what is wrong with it.
        ("nebula.dev/Policies", "Invalid") => true,
        (_, "ListenersNotResolved" | "ListenersNotValid") => {
            all.iter().filter(same_object).any(|other| !other.section.is_empty())
        }
        _ => false,
    }
}
