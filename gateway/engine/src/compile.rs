//! The configuration as workers read it, and how a delta turns one into the next.
//!
//! Invariants: a published [`Config`] never changes; a delta is applied whole, minus the objects that are refused, whose
//! old form stays. A change costs what it touches: a route's change rebuilds that route's rules and tables alone, an
//! endpoint's change rebuilds no table at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_model::{
    AccessLog, Backend, BackendKey, BackendSettings, BackendTarget, CertificateKey, Delta, Gateway, GatewayKey,
    Listener, ListenerKey, ListenerProtocol, Policy, PolicyKey, PolicyKind, PolicySpec, Resource, ResourceKey, Route,
    RouteKey, RouteKind, RuleAction, Snapshot, Timeouts, WeightedBackend,
};
use kit_process::error::chain;
use parking_lot::Mutex;
use policy_balance::WeightedTurns;
use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use tokio::time::Instant;

use crate::{
    client::{ClientRuntime, PortRuntime},
    filter::{Chain, FilterSet, InvalidFilter, InvalidPolicy},
    limits::Limits,
    local_reply::Reason,
    lookup::LookupMap,
    policies::{PolicySlots, RulePolicies},
    router::{Bind, ListenerTable, PortTable, Router, Served},
    telemetry::{ListenerMetrics, Metrics, RouteMetrics},
    tls::{self, ListenerTls},
    upstream::{BackendSlot, PolicyState, WorkerId},
};

/// An object of the configuration that cannot be honoured. What was there before stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The object.
    pub key: ResourceKey,
    /// Why, for its owner to read.
    pub error: String,
}

/// What workers read.
pub(crate) struct Config<F> {
    router: Router<CompiledRule<F>>,
    listeners: Arc<LookupMap<ListenerKey, Arc<ListenerRuntime>>>,
    ports: Arc<LookupMap<Bind, Arc<PortRuntime>>>,
    backends: Arc<LookupMap<BackendKey, Arc<BackendSlot>>>,
    access_log: AccessLog,
}

/// The listener that a TLS handshake has chosen.
pub(crate) struct Handshake {
    pub(crate) listener: ListenerKey,
    pub(crate) tls: Arc<ListenerTls>,
    pub(crate) limits: Arc<Limits>,
}

/// A listener's routes.
pub(crate) type Routes<F> = ListenerTable<CompiledRule<F>>;

/// A listener beside its routes.
#[derive(Debug)]
pub(crate) struct ListenerRuntime {
    pub(crate) label: Arc<str>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// `None` for a listener without TLS.
    pub(crate) tls: Option<Arc<ListenerTls>>,
    pub(crate) client: Arc<ClientRuntime>,
}

/// What the rules of one route share.
#[derive(Debug)]
pub(crate) struct RouteRuntime {
    pub(crate) kind: RouteKind,
    pub(crate) label: Arc<str>,
    pub(crate) metrics: Arc<RouteMetrics>,
}

/// A rule, ready to run.
#[derive(Debug)]
pub(crate) struct CompiledRule<F> {
    pub(crate) route: Arc<RouteRuntime>,
    /// The rule's name, or its number.
    pub(crate) label: Arc<str>,
    pub(crate) filters: Chain<F>,
    pub(crate) action: Action<F>,
    pub(crate) timeouts: Timeouts,
    pub(crate) policies: RulePolicies<F>,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) enum Action<F> {
    Forward(Split<F>),
    Fail(Reason),
}

/// A rule's backends by weight.
#[derive(Debug)]
pub(crate) struct Split<F> {
    targets: Vec<Target<F>>,
    weights: Vec<u32>,
    /// Whose turn it is, for each worker.
    turns: Box<[Mutex<WeightedTurns>]>,
}

/// One backend of a rule.
#[derive(Debug)]
pub(crate) struct Target<F> {
    /// Its slot, or why its share of the requests cannot be served.
    pub(crate) backend: Result<Arc<BackendSlot>, Reason>,
    pub(crate) filters: Chain<F>,
}

impl<F> Split<F> {
    /// The target of the next request on `worker`; `None` where none has a weight.
    pub(crate) fn pick(&self, worker: WorkerId) -> Option<&Target<F>> {
        let index = match self.weights.as_slice() {
            [weight] => (*weight > 0).then_some(0),
            weights => self.turns.get(worker.0)?.lock().pick(weights),
        }?;
        self.targets.get(index)
    }
}

impl<F> Config<F> {
    /// The listener that a TLS handshake for `server_name` belongs to, where one with TLS serves it.
    pub(crate) fn handshake(&self, bind: Bind, server_name: Option<&str>) -> Option<Handshake> {
        let table = self.router.port(bind)?.listener(server_name)?;
        let listener = self.listeners.get(table.key())?;
        Some(Handshake {
            listener: table.key().clone(),
            tls: listener.tls.clone()?,
            limits: listener.client.limits.clone(),
        })
    }

    /// Whether clients of this socket begin with a TLS handshake.
    pub(crate) fn has_tls(&self, bind: Bind) -> bool {
        self.listeners_of(bind).any(|listener| is_tls(listener))
    }

    /// What holds at a socket; `None` for one that is closed.
    pub(crate) fn port(&self, bind: Bind) -> Option<&Arc<PortRuntime>> {
        self.ports.get(&bind)
    }

    /// The listener that serves `host` on a connection whose handshake chose `handshake`.
    pub(crate) fn listener(
        &self,
        bind: Bind,
        handshake: Option<&ListenerKey>,
        host: &str,
    ) -> Result<(&Routes<F>, Option<&Arc<ListenerRuntime>>), Reason> {
        let port = self.router.port(bind).ok_or(Reason::NoListener)?;
        match port.serving(handshake, host) {
            Served::Listener(table) => {
                // The listener's protocol may have changed since the connection was made.
                if table.listener().is_some_and(|listener| is_tls(listener)) != handshake.is_some() {
                    return Err(Reason::Misdirected);
                }
                Ok((table, self.listeners.get(table.key())))
            }
            Served::Misdirected => Err(Reason::Misdirected),
            Served::Nobody => Err(Reason::NoListener),
        }
    }

    pub(crate) fn is_access_logged(&self) -> bool {
        self.access_log == AccessLog::Json
    }

    /// Every backend that something speaks of.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &Arc<BackendSlot>> {
        self.backends.values()
    }

    /// One backend.
    pub(crate) fn backend(&self, key: &BackendKey) -> Option<&Arc<BackendSlot>> {
        self.backends.get(key)
    }

    /// Closes connections of `worker` that were last used before `before`.
    pub(crate) fn close_idle(&self, worker: WorkerId, before: Instant) {
        for slot in self.backends.values() {
            slot.close_idle(worker, before);
        }
    }

    /// Every socket that is to be open.
    pub(crate) fn binds(&self) -> impl Iterator<Item = Bind> + '_ {
        self.router.binds()
    }

    /// The listeners of a socket.
    pub(crate) fn listeners_of(&self, bind: Bind) -> impl Iterator<Item = &Arc<Listener>> + '_ {
        self.router.port(bind).into_iter().flat_map(PortTable::listeners)
    }
}

impl<F> Clone for Config<F> {
    fn clone(&self) -> Self {
        Self {
            router: self.router.clone(),
            listeners: self.listeners.clone(),
            ports: self.ports.clone(),
            backends: self.backends.clone(),
            access_log: self.access_log,
        }
    }
}

impl<F> Default for Config<F> {
    fn default() -> Self {
        Self {
            router: Router::new(),
            listeners: Arc::default(),
            ports: Arc::default(),
            backends: Arc::default(),
            access_log: AccessLog::Json,
        }
    }
}

/// Turns deltas into configurations. There is one, behind the engine's lock.
pub(crate) struct Compiler<F: FilterSet> {
    /// What is in force, object by object: refused ones are not in it, or in their old form.
    pub(crate) snapshot: Snapshot,
    config: Config<F>,
    certificates: BTreeMap<CertificateKey, Arc<CertifiedKey>>,
    policies: PolicySlots<F>,
    /// Routes whose chains of policies are different although they are not.
    stale_routes: BTreeSet<RouteKey>,
    workers: usize,
    limits: Arc<Limits>,
    /// What the times of policies count from.
    origin: Instant,
    metrics: Arc<Metrics>,
    provider: Arc<CryptoProvider>,
}

impl<F: FilterSet> Compiler<F> {
    pub(crate) fn new(
        workers: usize,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
        provider: Arc<CryptoProvider>,
        state: Arc<F::State>,
    ) -> Self {
        Self {
            snapshot: Snapshot::default(),
            config: Config::default(),
            certificates: BTreeMap::new(),
            policies: PolicySlots::new(state),
            stale_routes: BTreeSet::new(),
            workers,
            limits,
            origin: Instant::now(),
            metrics,
            provider,
        }
    }

    /// Applies `delta`; returns the next configuration and what was refused of it.
    pub(crate) fn apply(&mut self, delta: &Delta) -> (Config<F>, Vec<Refused>) {
        let mut refused = Vec::new();
        let mut touches_listeners = false;
        let changed = delta.removed.iter().cloned().chain(delta.upserted.iter().map(Resource::key));
        let compared = |key: &ResourceKey| matches!(key, ResourceKey::Gateway(_) | ResourceKey::Listener(_));
        let mut leaving: BTreeSet<_> = changed.filter(compared).collect();
        for resource in &delta.upserted {
            touches_listeners |= shapes_listeners(&resource.key());
            leaving.remove(&resource.key());
            match self.upsert(resource, &leaving) {
                Ok(()) => self.snapshot.insert(resource.clone()),
                Err(error) => {
                    // An older form of a policy may forbid less than the one that is meant.
                    if let Resource::Policy(policy) = resource {
                        self.snapshot.policies.remove(&policy.key);
                    }
                    refused.push(Refused { key: resource.key(), error: chain(&error) });
                }
            }
        }
        for key in &delta.removed {
            touches_listeners |= shapes_listeners(key);
            self.snapshot.remove(key);
        }
        self.detach_slots(delta);
        self.refresh_policies(delta);
        self.refresh_backends(delta);
        for key in &delta.removed {
            self.remove(key);
        }
        if touches_listeners {
            refused.extend(self.compile_listeners());
        }
        self.drop_vacant_slots(delta);
        (self.config.clone(), refused)
    }

    /// `leaving` are the Gateways and listeners whose present form goes with the same delta.
    fn upsert(&mut self, resource: &Resource, leaving: &BTreeSet<ResourceKey>) -> Result<(), Invalid> {
        match resource {
            Resource::Gateway(gateway) => {
                self.check_settings(gateway, leaving)?;
                let before = self.snapshot.gateways.get(&gateway.key).map_or(&[][..], |gateway| &gateway.policies);
                if before != gateway.policies {
                    self.mark_routes(|listener| listener.gateway == gateway.key);
                }
                self.config.access_log = gateway.access_log;
            }
            Resource::Certificate(certificate) => {
                let key = tls::certified_key(certificate, &self.provider)?;
                self.certificates.insert(certificate.key.clone(), key);
            }
            Resource::Listener(listener) => {
                self.check_port(listener, leaving)?;
                let before = self.snapshot.listeners.get(&listener.key).map_or(&[][..], |listener| &listener.policies);
                if before != listener.policies {
                    self.mark_routes(|key| *key == listener.key);
                }
                self.config.router.upsert_listener(listener.clone());
            }
            Resource::Policy(policy) => self.policies.check(policy)?,
            // Its slot takes it once every policy of the delta is known: see `refresh_backends`.
            Resource::Backend(_) => {}
            Resource::Endpoints(endpoints) => self.slot(&endpoints.key).set_endpoints(Some(endpoints)),
            Resource::Route(route) => self.compile_route(route)?,
        }
        Ok(())
    }

    fn remove(&mut self, key: &ResourceKey) {
        match key {
            ResourceKey::Gateway(_) => {
                self.config.access_log = self.settings().map_or(AccessLog::Json, |gateway| gateway.access_log);
            }
            ResourceKey::Certificate(key) => drop(self.certificates.remove(key)),
            ResourceKey::Policy(key) => self.metrics.policy_removed(key),
            ResourceKey::Listener(key) => self.config.router.remove_listener(key),
            // A slot that is detached is no longer here: what runs over it goes on.
            ResourceKey::Backend(key) => {
                if let Some(slot) = self.config.backends.get(key) {
                    slot.set(None);
                }
            }
            ResourceKey::Endpoints(key) => {
                if let Some(slot) = self.config.backends.get(key) {
                    slot.set_endpoints(None);
                }
            }
            ResourceKey::Route(key) => self.config.router.remove_route(key),
        }
    }

    /// The Gateway whose settings are in force; any, as they all have the same.
    pub(crate) fn settings(&self) -> Option<&Arc<Gateway>> {
        self.snapshot.gateways.values().next()
    }

    /// One process has one access log and one place for its traces.
    fn check_settings(&self, gateway: &Gateway, leaving: &BTreeSet<ResourceKey>) -> Result<(), Invalid> {
        let stays = |other: &&Arc<Gateway>| {
            other.key != gateway.key && !leaving.contains(&ResourceKey::Gateway(other.key.clone()))
        };
        let differs =
            |other: &&Arc<Gateway>| other.access_log != gateway.access_log || other.tracing != gateway.tracing;
        match self.snapshot.gateways.values().filter(stays).find(differs) {
            Some(other) => Err(Invalid::OtherSettings { by: other.key.clone() }),
            None => Ok(()),
        }
    }

    /// One process serves a port for one Gateway and in one protocol; else clients would meet another's listeners.
    fn check_port(&self, listener: &Listener, leaving: &BTreeSet<ResourceKey>) -> Result<(), Invalid> {
        let stays = |other: &&Arc<Listener>| {
            other.key != listener.key && !leaving.contains(&ResourceKey::Listener(other.key.clone()))
        };
        for bind in Bind::of(listener) {
            for other in self.config.listeners_of(bind).filter(stays) {
                if other.key.gateway != listener.key.gateway || is_tls(other) != is_tls(listener) {
                    return Err(Invalid::PortInUse { port: bind.port.get(), by: other.key.clone() });
                }
            }
        }
        Ok(())
    }

    /// Marks the routes that are attached to a listener of which `is_meant` is true.
    fn mark_routes(&mut self, is_meant: impl Fn(&ListenerKey) -> bool) {
        let attached = |route: &&Arc<Route>| route.attachments.iter().any(|attachment| is_meant(&attachment.listener));
        let keys = self.snapshot.routes.values().filter(attached).map(|route| route.key.clone());
        self.stale_routes.extend(keys);
    }

    /// Brings chains of policies to what `delta` has made of the policies, and of what those are attached to.
    fn refresh_policies(&mut self, delta: &Delta) {
        let mut changed = BTreeSet::new();
        let mut is_route = false;
        for key in delta.upserted.iter().map(Resource::key).chain(delta.removed.iter().cloned()) {
            is_route |= matches!(key, ResourceKey::Route(_));
            if let ResourceKey::Policy(key) = key {
                changed.insert(key);
            }
        }
        self.policies.refresh(&changed, &self.snapshot.policies);
        let stale = std::mem::take(&mut self.stale_routes);
        for key in &stale {
            if let Some(route) = self.snapshot.routes.get(key).cloned()
                && let Err(error) = self.compile_route(&route)
            {
                // It was compiled before, from the same.
                tracing::error!(route = %key, error = chain(&error), "a route that was accepted is refused");
            }
        }
        if is_route || !stale.is_empty() {
            self.policies.drop_unused();
        }
        self.policies.forget_checked();
    }

    /// Gives each backend that `delta` sets, or whose policy it changes, its settings and its policy: the policy first, so
    /// that no request meets a backend without it.
    fn refresh_backends(&mut self, delta: &Delta) {
        let mut changed = BTreeSet::new();
        let mut policies = BTreeSet::new();
        for key in delta.upserted.iter().map(Resource::key).chain(delta.removed.iter().cloned()) {
            match key {
                ResourceKey::Backend(key) => drop(changed.insert(key)),
                ResourceKey::Policy(key) if key.kind == PolicyKind::Backend => drop(policies.insert(key)),
                _ => {}
            }
        }
        if !policies.is_empty() {
            let concerned = |backend: &&Arc<Backend>| backend.policies.iter().any(|key| policies.contains(key));
            changed.extend(self.snapshot.backends.values().filter(concerned).map(|backend| backend.key.clone()));
        }
        for key in changed {
            let Some(backend) = self.snapshot.backends.get(&key).cloned() else { continue };
            let slot = self.slot(&key);
            let state = policy_state(&backend, &self.snapshot.policies);
            if let Err(error) = slot.set_policy(state) {
                // It was checked when it came.
                tracing::error!(backend = %key, error = chain(&error), "a policy that was accepted is refused");
            }
            slot.set(Some(backend));
        }
    }

    /// The chains of policies for one rule.
    fn rule_policies(&mut self, route: &Route, rule: &[PolicyKey]) -> RulePolicies<F> {
        let mut slots = Vec::with_capacity(route.attachments.len());
        for attachment in &route.attachments {
            let key = &attachment.listener;
            let gateway = self.snapshot.gateways.get(&key.gateway).map_or(&[][..], |gateway| &gateway.policies);
            let listener = self.snapshot.listeners.get(key).map_or(&[][..], |listener| &listener.policies);
            let chain: Vec<PolicyKey> =
                [gateway, listener, &route.policies, rule].into_iter().flatten().cloned().collect();
            let slot = (!chain.is_empty()).then(|| self.policies.slot(chain.into(), &self.snapshot.policies));
            slots.push((key.clone(), slot));
        }
        RulePolicies::new(slots)
    }

    fn compile_route(&mut self, route: &Arc<Route>) -> Result<(), Invalid> {
        self.stale_routes.remove(&route.key);
        let runtime = Arc::new(RouteRuntime {
            kind: route.key.kind,
            label: route.key.to_string().into(),
            metrics: self.metrics.route(&route.key),
        });
        let rules = (0..route.rules.len())
            .map(|index| self.compile_rule(&runtime, route, index).map(Arc::new))
            .collect::<Result<Vec<_>, Invalid>>()?;
        let mut rules = rules.into_iter();
        // `make` is called once for each rule in order; a rule that were missing would be a bug of the router's.
        let fallback = || Arc::new(CompiledRule::failing(&runtime, Reason::Internal));
        self.config.router.upsert_route(route.clone(), |_| rules.next().unwrap_or_else(fallback));
        Ok(())
    }

    fn compile_rule(
        &mut self,
        runtime: &Arc<RouteRuntime>,
        route: &Route,
        index: usize,
    ) -> Result<CompiledRule<F>, Invalid> {
        let Some(rule) = route.rules.get(index) else {
            return Ok(CompiledRule::failing(runtime, Reason::Internal));
        };
        let label = rule.name.clone().unwrap_or_else(|| index.to_string().into());
        let in_rule = |source| Invalid::Filter { rule: index, source };
        let action = match &rule.action {
            RuleAction::Fail(unavailable) => Action::Fail((*unavailable).into()),
            RuleAction::Forward(backends) => Action::Forward(Split {
                targets: backends
                    .iter()
                    .map(|backend| self.compile_target(backend))
                    .collect::<Result<_, _>>()
                    .map_err(in_rule)?,
                weights: backends.iter().map(|backend| backend.weight).collect(),
                turns: (0..self.workers).map(|_| Mutex::default()).collect(),
            }),
        };
        let filters = Chain::compile(&rule.filters).map_err(in_rule)?;
        let policies = self.rule_policies(route, &rule.policies);
        Ok(CompiledRule { route: runtime.clone(), label, filters, action, timeouts: rule.timeouts, policies })
    }

    fn compile_target(&mut self, backend: &WeightedBackend) -> Result<Target<F>, InvalidFilter> {
        let slot = match &backend.target {
            BackendTarget::Backend(key) => Ok(self.slot(key)),
            BackendTarget::Invalid(unavailable) => Err((*unavailable).into()),
        };
        Ok(Target { backend: slot, filters: Chain::compile(&backend.filters)? })
    }

    /// A backend's slot, made where there is none.
    fn slot(&mut self, key: &BackendKey) -> Arc<BackendSlot> {
        if let Some(slot) = self.config.backends.get(key) {
            return slot.clone();
        }
        let slot = Arc::new(BackendSlot::new(key.clone(), self.workers, &self.metrics, self.origin));
        Arc::make_mut(&mut self.config.backends).insert(key.clone(), slot.clone());
        slot
    }

    /// Forgets the slots of backends that are gone and that no route names any more, and leaves in them what they hold:
    /// a request that began with the configuration before may still be on its way to one.
    fn detach_slots(&mut self, delta: &Delta) {
        let gone: Vec<_> = delta
            .removed
            .iter()
            .filter_map(|key| match key {
                ResourceKey::Backend(key) | ResourceKey::Endpoints(key) => Some(key),
                _ => None,
            })
            .filter(|key| !self.snapshot.backends.contains_key(*key) && !self.snapshot.endpoints.contains_key(*key))
            .collect();
        if gone.is_empty() {
            return;
        }
        let named: BTreeSet<_> = self.snapshot.routes.values().flat_map(|route| backends_of(route)).collect();
        for key in gone {
            if !named.contains(key) {
                Arc::make_mut(&mut self.config.backends).remove(key);
            }
        }
    }

    /// Forgets slots that no rule points to and whose backend is gone.
    fn drop_vacant_slots(&mut self, delta: &Delta) {
        let may_leave_one = |key: &ResourceKey| {
            matches!(key, ResourceKey::Backend(_) | ResourceKey::Endpoints(_) | ResourceKey::Route(_))
        };
        if !delta.removed.iter().any(may_leave_one) {
            return;
        }
        // One reference is the map's own. A request in flight may hold another; its slot goes with the next removal.
        let is_used = |slot: &Arc<BackendSlot>| !slot.is_vacant() || Arc::strong_count(slot) > 1;
        if !self.config.backends.values().all(is_used) {
            Arc::make_mut(&mut self.config.backends).retain(|_, slot| is_used(slot));
        }
    }

    /// Resolves what listeners need beside their routes: certificates, what they grant their clients, metrics.
    fn compile_listeners(&mut self) -> Vec<Refused> {
        let mut refused = Vec::new();
        let mut listeners = LookupMap::default();
        let mut ports: BTreeMap<Bind, PortRuntime> = BTreeMap::new();
        for listener in self.snapshot.listeners.values() {
            let before = self.config.listeners.get(&listener.key);
            let client = self.compile_client(listener, before);
            let tls = match self.compile_tls(listener, &client, before) {
                Ok(tls) => tls,
                Err(error) => {
                    let key = ResourceKey::Listener(listener.key.clone());
                    refused.push(Refused { key, error: chain(&error) });
                    continue;
                }
            };
            for bind in Bind::of(listener) {
                self.add_to_port(&mut ports, bind, &client);
            }
            let runtime = ListenerRuntime {
                label: listener.key.to_string().into(),
                metrics: self.metrics.listener(&listener.key),
                tls,
                client,
            };
            listeners.insert(listener.key.clone(), Arc::new(runtime));
        }
        self.config.listeners = Arc::new(listeners);
        self.config.ports = Arc::new(ports.into_iter().map(|(bind, port)| (bind, Arc::new(port))).collect());
        refused
    }

    /// What the policies on the way of a listener's clients make of it.
    fn compile_client(&self, listener: &Listener, before: Option<&Arc<ListenerRuntime>>) -> Arc<ClientRuntime> {
        let gateway = self.snapshot.gateways.get(&listener.key.gateway).map_or(&[][..], |gateway| &gateway.policies);
        let keys = gateway.iter().chain(&listener.policies);
        let policies = keys.filter_map(|key| self.snapshot.policies.get(key)).map(|policy| -> &Policy { policy });
        let client = ClientRuntime::new(policies, &self.limits);
        let kept = before.map(|before| &before.client).filter(|before| before.is_same(&client));
        kept.map_or_else(|| Arc::new(client), Arc::clone)
    }

    /// The TLS side of a listener that has one; the one before while nothing about it changes.
    fn compile_tls(
        &self,
        listener: &Listener,
        client: &ClientRuntime,
        before: Option<&Arc<ListenerRuntime>>,
    ) -> Result<Option<Arc<ListenerTls>>, rustls::Error> {
        let ListenerProtocol::Https(termination) = &listener.protocol else { return Ok(None) };
        let keys: Vec<_> =
            termination.certificates.iter().filter_map(|key| self.certificates.get(key)).cloned().collect();
        let settings = client.tls();
        let kept = before.and_then(|before| before.tls.clone()).filter(|tls| tls.serves(&keys, &settings));
        kept.map_or_else(|| ListenerTls::new(keys, settings, &self.provider).map(Arc::new), Ok).map(Some)
    }

    fn add_to_port(&self, ports: &mut BTreeMap<Bind, PortRuntime>, bind: Bind, client: &ClientRuntime) {
        let is_first = !ports.contains_key(&bind);
        let port = ports.entry(bind).or_insert_with(|| {
            let connections = self.config.ports.get(&bind).map(|before| before.connections.clone());
            PortRuntime::new(self.metrics.port(bind.port.get()), self.limits.clone(), connections.unwrap_or_default())
        });
        port.add(client, is_first);
    }
}

impl<F> CompiledRule<F> {
    fn failing(route: &Arc<RouteRuntime>, reason: Reason) -> Self {
        Self {
            route: route.clone(),
            label: "unknown".into(),
            filters: Chain::default(),
            action: Action::Fail(reason),
            timeouts: Timeouts::default(),
            policies: RulePolicies::Same(None),
        }
    }
}

/// Whether what listeners are beside their routes depends on the object.
fn shapes_listeners(key: &ResourceKey) -> bool {
    match key {
        ResourceKey::Certificate(_) | ResourceKey::Listener(_) | ResourceKey::Gateway(_) => true,
        ResourceKey::Policy(policy) => policy.kind == PolicyKind::Client,
        ResourceKey::Backend(_) | ResourceKey::Endpoints(_) | ResourceKey::Route(_) => false,
    }
}

fn is_tls(listener: &Listener) -> bool {
    matches!(listener.protocol, ListenerProtocol::Https(_))
}

/// What the policies say of a backend's requests. A policy of another kind cannot be attached to one.
fn policy_state(backend: &Backend, policies: &BTreeMap<PolicyKey, Arc<Policy>>) -> PolicyState {
    let Some(key) = backend.policies.first() else { return PolicyState::None };
    match policies.get(key).map(|policy| &policy.spec) {
        None => PolicyState::Closed(Reason::PolicyUnavailable, key.clone()),
        Some(PolicySpec::Backend(settings)) => PolicyState::Settings(Arc::new(BackendSettings::clone(settings))),
        Some(_) => PolicyState::Closed(Reason::PolicyInvalid, key.clone()),
    }
}

/// The backends that a route names, with repeats.
fn backends_of(route: &Route) -> impl Iterator<Item = &BackendKey> {
    let targets = route.rules.iter().filter_map(|rule| match &rule.action {
        RuleAction::Forward(backends) => Some(backends),
        RuleAction::Fail(_) => None,
    });
    targets.flatten().filter_map(|backend| match &backend.target {
        BackendTarget::Backend(key) => Some(key),
        BackendTarget::Invalid(_) => None,
    })
}

/// Why an object is refused.
#[derive(Debug, thiserror::Error)]
enum Invalid {
    #[error(transparent)]
    Certificate(#[from] tls::InvalidCertificate),
    #[error("port {port} is served already, by listener {by} of another Gateway or protocol")]
    PortInUse { port: u16, by: ListenerKey },
    #[error("access log and tracing are set differently by Gateway {by}, whose settings count for this whole process")]
    OtherSettings { by: GatewayKey },
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    #[error("rule {rule}")]
    Filter {
        rule: usize,
        #[source]
        source: InvalidFilter,
    },
}
