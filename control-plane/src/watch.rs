//! Watches of the API server: one task a kind, each turning what it sees into batches for the apply loop.
//!
//! Invariants: what the translator knows changes only by whole lists or single events, so a watch that breaks leaves
//! the last state in place; an event that changes nothing which the translator reads (our own status writes above all)
//! is not passed on. A queue that is full holds the watch back, which the API server then buffers. An object that cannot
//! be read fails alone: its last state stays, and the rest of its kind goes on.

mod bundle;
mod health;
mod kinds;
mod retry;
mod seen;

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use control_plane_model::ObjectName;
use control_plane_translate::{CREDENTIALS_TYPE, Change, Kind, object_name};
use futures::StreamExt as _;
use kit_process::{drain::Drain, tasks::Tasks};
use kube::{
    Api, Client, Resource as _,
    api::ObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::mpsc, time::Instant};

pub(crate) use health::Health;
pub use kinds::Watched;
pub(crate) use retry::Retry;
use seen::Seen;

use crate::{kubernetes::watching, metrics::WatchMetrics, status::Board};

/// What the apply loop receives.
#[derive(Debug)]
pub enum Input {
    /// Changes that belong together, as one moment.
    Changes {
        /// The changes.
        changes: Vec<Change>,
        /// The source whose state is now complete for the first time.
        synced: Option<Source>,
        /// When they were received.
        received: Instant,
    },
    /// Somebody changed the status of an object.
    StatusSeen(Kind, ObjectName),
}

/// Where changes come from. Proxies are answered once every source is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The watch of a kind.
    Kind(Kind),
    /// The watch of Secrets that hold credentials of clients.
    Credentials,
    /// The objects that the provisioner made.
    Provisioned,
    /// The reports of other replicas' proxies.
    Reports,
}

/// Every source there is.
pub fn sources() -> Vec<Source> {
    let kinds = [
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::ListenerSet,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::ReferenceGrant,
        Kind::BackendTlsPolicy,
        Kind::GatewayConfig,
        Kind::RateLimitPolicy,
        Kind::BackendPolicy,
        Kind::RequestValidationPolicy,
        Kind::AuthenticationPolicy,
        Kind::IdentityProvider,
        Kind::ClientPolicy,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::Namespace,
    ];
    kinds.into_iter().map(Source::Kind).chain([Source::Credentials, Source::Provisioned, Source::Reports]).collect()
}

/// What every watch needs.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Where changes go.
    pub sink: mpsc::Sender<Input>,
    /// What is known of the objects' statuses.
    pub board: Arc<Board>,
    /// The state of each watch.
    pub metrics: WatchMetrics,
    /// The end.
    pub drain: Drain,
}

/// Starts the watch of every kind that the translator reads.
pub fn start(context: &Context, tasks: &Tasks) {
    use crds::{
        AuthenticationPolicy, BackendPolicy, ClientPolicy, GatewayConfig, IdentityProvider, RateLimitPolicy,
        RequestValidationPolicy,
        gateway_api::{BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant},
    };
    use k8s_openapi::api::{
        core::v1::{ConfigMap, Namespace, Secret, Service},
        discovery::v1::EndpointSlice,
    };
    tasks.spawn("watch bundle version", bundle::watch(context.clone()));
    // Of Secrets only these two types are of use: no other Secret of the cluster enters this process's memory.
    let certificates = watching().fields("type=kubernetes.io/tls");
    let credentials = watching().fields(&format!("type={CREDENTIALS_TYPE}"));
    spawn::<GatewayClass>("watch GatewayClass", context, tasks, watching());
    spawn::<Gateway>("watch Gateway", context, tasks, watching());
    spawn::<ListenerSet>("watch ListenerSet", context, tasks, watching());
    spawn::<HTTPRoute>("watch HTTPRoute", context, tasks, watching());
    spawn::<GRPCRoute>("watch GRPCRoute", context, tasks, watching());
    spawn::<ReferenceGrant>("watch ReferenceGrant", context, tasks, watching());
    spawn::<BackendTLSPolicy>("watch BackendTLSPolicy", context, tasks, watching());
    spawn::<GatewayConfig>("watch GatewayConfig", context, tasks, watching());
    spawn::<RateLimitPolicy>("watch RateLimitPolicy", context, tasks, watching());
    spawn::<BackendPolicy>("watch BackendPolicy", context, tasks, watching());
    spawn::<RequestValidationPolicy>("watch RequestValidationPolicy", context, tasks, watching());
    spawn::<AuthenticationPolicy>("watch AuthenticationPolicy", context, tasks, watching());
    spawn::<IdentityProvider>("watch IdentityProvider", context, tasks, watching());
    spawn::<ClientPolicy>("watch ClientPolicy", context, tasks, watching());
    spawn::<Service>("watch Service", context, tasks, watching());
    spawn::<EndpointSlice>("watch EndpointSlice", context, tasks, watching());
    spawn::<Secret>("watch Secret", context, tasks, certificates);
    let of_clients = watch::<Secret>(context.clone(), credentials, Source::Credentials, "Secret (credentials)");
    tasks.spawn("watch Secret of clients", of_clients);
    spawn::<Namespace>("watch Namespace", context, tasks, watching());
    // Each namespace has one with the API server's certificate, which no policy reads.
    let documents = watching().fields("metadata.name!=kube-root-ca.crt");
    spawn::<ConfigMap>("watch ConfigMap", context, tasks, documents);
}

fn spawn<K: Watched>(task: &'static str, context: &Context, tasks: &Tasks, config: watcher::Config) {
    tasks.spawn(task, watch::<K>(context.clone(), config, Source::Kind(K::KIND), K::KIND.as_str()));
}

/// Watches one kind until the drain. Never gives up: errors are logged and tried again. `name` is what metrics call it.
async fn watch<K: Watched>(context: Context, config: watcher::Config, source: Source, name: &'static str) {
    let api = Api::<Seen<K>>::all(context.client.clone());
    let mut events = Box::pin(watcher(api, config).backoff(Retry::default()));
    let mut mirror = Mirror::<K>::new(context.board.clone(), context.metrics.clone(), source, name);
    let mut health = Health::new(name, K::REQUIRED, &context.metrics);
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = health.quiet() => continue,
            () = context.drain.signaled() => return,
        };
        let received = Instant::now();
        let inputs = match event {
            None => return,
            Some(Err(error)) => {
                if health.broken(&error) {
                    mirror.absent(received)
                } else {
                    Vec::new()
                }
            }
            Some(Ok(event)) => {
                health.alive(&event);
                mirror.event(event, received)
            }
        };
        for input in inputs {
            // An error means that the apply loop is gone, and with it the process.
            if context.sink.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// What a watch has passed on, so that lists after a break become differences.
struct Mirror<K> {
    board: Arc<Board>,
    metrics: WatchMetrics,
    source: Source,
    name: &'static str,
    known: HashMap<ObjectName, u64>,
    /// Objects that cannot be read now, with the reason that was logged.
    unreadable: HashMap<ObjectName, String>,
    listing: Option<Vec<Seen<K>>>,
    complete: bool,
}

impl<K: Watched> Mirror<K> {
    fn new(board: Arc<Board>, metrics: WatchMetrics, source: Source, name: &'static str) -> Self {
        let (known, unreadable) = (HashMap::new(), HashMap::new());
        Self { board, metrics, source, name, known, unreadable, listing: None, complete: false }
    }

    fn event(&mut self, event: Event<Seen<K>>, received: Instant) -> Vec<Input> {
        match event {
            Event::Init => {
                self.listing = Some(Vec::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                self.listing.get_or_insert_default().push(object);
                Vec::new()
            }
            Event::InitDone => self.list_done(received),
            Event::Apply(object) => self.applied(object, received),
            Event::Delete(object) => {
                let name = object_name(K::KIND, object.meta());
                self.forget(&name);
                vec![Input::Changes { changes: vec![Change::Remove(K::KIND, name)], synced: None, received }]
            }
        }
    }

    fn applied(&mut self, object: Seen<K>, received: Instant) -> Vec<Input> {
        let name = object_name(K::KIND, object.meta());
        match self.upsert(&name, object) {
            Upsert::Changed(change) => vec![Input::Changes { changes: vec![change], synced: None, received }],
            Upsert::Same if K::HAS_STATUS => vec![Input::StatusSeen(K::KIND, name)],
            Upsert::Same | Upsert::Unreadable => Vec::new(),
        }
    }

    /// A whole list was read: what it does not hold is gone. What it holds but cannot be read stays as it was.
    fn list_done(&mut self, received: Instant) -> Vec<Input> {
        let listed = self.listing.take().unwrap_or_default();
        let names: HashSet<ObjectName> = listed.iter().map(|object| object_name(K::KIND, object.meta())).collect();
        let known = self.known.keys().chain(self.unreadable.keys());
        let gone: HashSet<ObjectName> = known.filter(|name| !names.contains(*name)).cloned().collect();
        let mut changes = Vec::new();
        for name in gone {
            self.forget(&name);
            changes.push(Change::Remove(K::KIND, name));
        }
        for object in listed {
            let name = object_name(K::KIND, object.meta());
            if let Upsert::Changed(change) = self.upsert(&name, object) {
                changes.push(change);
            }
        }
        let synced = (!std::mem::replace(&mut self.complete, true)).then_some(self.source);
        if changes.is_empty() && synced.is_none() {
            return Vec::new();
        }
        vec![Input::Changes { changes, synced, received }]
    }

    /// The API server does not know the kind: as long as that is so there are no objects of it.
    fn absent(&mut self, received: Instant) -> Vec<Input> {
        self.listing = None;
        self.list_done(received)
    }

    fn upsert(&mut self, name: &ObjectName, seen: Seen<K>) -> Upsert {
        let (mut object, status) = match seen {
            Seen::Readable { object, status } => (*object, status),
            Seen::Unreadable { why, .. } => {
                self.unreadable(name, why);
                return Upsert::Unreadable;
            }
        };
        self.readable(name);
        object.slim();
        if K::HAS_STATUS {
            self.board.observed(K::KIND, name, status);
        }
        let fingerprint = fingerprint(object.meta(), K::HAS_GENERATION);
        if self.known.insert(name.clone(), fingerprint) == Some(fingerprint) {
            return Upsert::Same;
        }
        Upsert::Changed(Change::Upsert(Arc::new(object).into_object()))
    }

    /// Says once for each reason that an object cannot be read.
    fn unreadable(&mut self, name: &ObjectName, why: String) {
        if self.unreadable.get(name) == Some(&why) {
            return;
        }
        let kept = self.known.contains_key(name);
        tracing::error!(kind = %K::KIND, object = %name, error = why, kept, "object cannot be read: going on without this version of it");
        self.unreadable.insert(name.clone(), why);
        self.metrics.unreadable(self.name, self.unreadable.len());
    }

    fn readable(&mut self, name: &ObjectName) {
        if self.unreadable.remove(name).is_some() {
            tracing::info!(kind = %K::KIND, object = %name, "object can be read again");
            self.metrics.unreadable(self.name, self.unreadable.len());
        }
    }

    fn forget(&mut self, name: &ObjectName) {
        self.known.remove(name);
        if self.unreadable.remove(name).is_some() {
            self.metrics.unreadable(self.name, self.unreadable.len());
        }
        if K::HAS_STATUS {
            self.board.removed(K::KIND, name);
        }
    }
}

/// What an object of a watch means for the translator.
enum Upsert {
    /// It has to hear of it.
    Changed(Change),
    /// Nothing that it reads is different.
    Same,
    /// The last state that could be read stays.
    Unreadable,
}

/// Equal for two versions of an object which differ in nothing that the translator reads.
fn fingerprint(metadata: &ObjectMeta, has_generation: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    metadata.uid.hash(&mut hasher);
    // A custom resource's generation counts changes of everything but metadata and status.
    match metadata.generation.filter(|_| has_generation) {
        None => metadata.resource_version.hash(&mut hasher),
        Some(generation) => {
            generation.hash(&mut hasher);
            metadata.labels.hash(&mut hasher);
            metadata.annotations.hash(&mut hasher);
            metadata.deletion_timestamp.is_some().hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use crds::gateway_api::{HTTPRoute, HTTPRouteSpec};

    use super::*;

    fn route(name: &str, generation: i64, version: &str) -> Seen<HTTPRoute> {
        let mut route = HTTPRoute::new(name, HTTPRouteSpec::default());
        route.metadata.namespace = Some("shop".to_owned());
        route.metadata.generation = Some(generation);
        route.metadata.resource_version = Some(version.to_owned());
        Seen::Readable { object: Box::new(route), status: "null".to_owned() }
    }

    fn unreadable(name: &str, version: &str) -> Seen<HTTPRoute> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("shop".to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        Seen::Unreadable { metadata: Box::new(metadata), why: "unknown variant".to_owned() }
    }

    fn summary(inputs: Vec<Input>) -> Vec<String> {
        let describe = |change: &Change| match change {
            Change::Upsert(object) => format!("+{}", object.name().name),
            Change::Remove(_, name) => format!("-{}", name.name),
            _ => "?".to_owned(),
        };
        let describe_input = |input: Input| match input {
            Input::Changes { changes, synced, .. } => {
                let changes: Vec<String> = changes.iter().map(describe).collect();
                format!("{}{}", changes.join(" "), if synced.is_some() { " synced" } else { "" })
            }
            Input::StatusSeen(_, name) => format!("status {}", name.name),
        };
        inputs.into_iter().map(describe_input).collect()
    }

    #[tokio::test]
    async fn a_list_after_a_break_becomes_the_difference() {
        let mut mirror =
            Mirror::new(Arc::default(), WatchMetrics::default(), Source::Kind(Kind::HttpRoute), "HTTPRoute");
        let now = Instant::now();
        for event in [Event::Init, Event::InitApply(route("a", 1, "1")), Event::InitApply(route("b", 1, "2"))] {
            assert!(mirror.event(event, now).is_empty());
        }
        assert_eq!(summary(mirror.event(Event::InitDone, now)), ["+a +b synced"]);
        for event in [Event::Init, Event::InitApply(route("b", 2, "9")), Event::InitApply(route("c", 1, "8"))] {
            assert!(mirror.event(event, now).is_empty());
        }
        assert_eq!(summary(mirror.event(Event::InitDone, now)), ["-a +b +c"]);
    }

    #[tokio::test]
    async fn a_status_write_does_not_reach_the_translator() {
        let mut mirror =
            Mirror::new(Arc::default(), WatchMetrics::default(), Source::Kind(Kind::HttpRoute), "HTTPRoute");
        let now = Instant::now();
        assert_eq!(summary(mirror.event(Event::Apply(route("a", 1, "1")), now)), ["+a"]);
        assert_eq!(summary(mirror.event(Event::Apply(route("a", 1, "2")), now)), ["status a"]);
        assert_eq!(summary(mirror.event(Event::Apply(route("a", 2, "3")), now)), ["+a"]);
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_read_keeps_its_last_state_until_it_is_gone() {
        let mut mirror =
            Mirror::new(Arc::default(), WatchMetrics::default(), Source::Kind(Kind::HttpRoute), "HTTPRoute");
        let now = Instant::now();
        assert_eq!(summary(mirror.event(Event::Apply(route("a", 1, "1")), now)), ["+a"]);
        assert!(mirror.event(Event::Apply(unreadable("a", "2")), now).is_empty());
        for event in [Event::Init, Event::InitApply(unreadable("a", "2")), Event::InitApply(route("b", 1, "3"))] {
            assert!(mirror.event(event, now).is_empty());
        }
        assert_eq!(summary(mirror.event(Event::InitDone, now)), ["+b synced"]);
        assert_eq!(summary(mirror.event(Event::Apply(route("a", 3, "4")), now)), ["+a"]);
        assert!(mirror.event(Event::Apply(unreadable("a", "5")), now).is_empty());
        assert_eq!(summary(mirror.event(Event::Delete(unreadable("a", "6")), now)), ["-a"]);
        assert!(mirror.unreadable.is_empty());
    }

    #[tokio::test]
    async fn a_kind_that_is_not_installed_counts_as_empty() {
        let mut mirror = Mirror::<HTTPRoute>::new(
            Arc::default(),
            WatchMetrics::default(),
            Source::Kind(Kind::HttpRoute),
            "HTTPRoute",
        );
        let now = Instant::now();
        assert_eq!(summary(mirror.absent(now)), [" synced"]);
        assert!(mirror.absent(now).is_empty());
    }
}
