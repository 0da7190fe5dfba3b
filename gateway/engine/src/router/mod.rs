//! Which rule takes a request: port, then listener, then host, then match, by the precedence of the Gateway API.
//!
//! Built incrementally: a route's change rebuilds nothing but the tables of the hosts that it serves. A clone shares
//! everything with its origin and is copied on write, so that a configuration in use never changes.
//!
//! Order among all matches of a listener: the host served (exact, then the longer wildcard, then any); where that is
//! equal the host that the route declares; then the match ([`rank`]); then the older route, its `namespace/name`, and
//! the order in the route. Where no match of a host takes the request, less specific hosts are asked.

mod hosts;
mod rank;
mod request;
mod rules;

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16, sync::Arc};

use control_plane_model::{Listener, ListenerKey, Route, RouteKey};

pub use self::request::RequestView;
pub(crate) use self::request::query_parameter;
use self::{hosts::Hosts, rank::Order};
use crate::lookup::LookupMap;

/// A socket that listeners share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bind {
    /// The address; `None` for every address of the machine.
    pub address: Option<IpAddr>,
    /// The port as the Gateway names it.
    pub port: NonZeroU16,
}

impl Bind {
    /// The sockets of a listener.
    pub fn of(listener: &Listener) -> impl Iterator<Item = Self> + '_ {
        let port = listener.port;
        let everywhere = listener.addresses.is_empty().then_some(Self { address: None, port });
        everywhere
            .into_iter()
            .chain(listener.addresses.iter().map(move |address| Self { address: Some(*address), port }))
    }
}

/// All listeners and the routes attached to them. `T` is a compiled rule.
pub struct Router<T> {
    /// Tables of every listener that is known or that a route names.
    tables: Arc<LookupMap<ListenerKey, Arc<ListenerTable<T>>>>,
    ports: Arc<LookupMap<Bind, Arc<PortTable<T>>>>,
    routes: Arc<LookupMap<RouteKey, Arc<Route>>>,
}

/// The listeners of one socket.
pub struct PortTable<T> {
    /// By key, so that of two listeners for the same host the same one wins everywhere.
    listeners: Hosts<BTreeMap<ListenerKey, Arc<ListenerTable<T>>>>,
}

/// One listener with its routes.
pub struct ListenerTable<T> {
    key: ListenerKey,
    listener: Option<Arc<Listener>>,
    hosts: Hosts<rules::HostTable<T>>,
}

/// A rule that takes a request.
#[derive(Debug)]
pub struct Matched<'a, T> {
    /// The rule.
    pub rule: &'a Arc<T>,
    /// How many bytes of the path its `PathPrefix` matched, without a closing slash; `None` for other matches.
    pub prefix: Option<usize>,
}

/// Which listener of a socket serves a request.
pub enum Served<'a, T> {
    /// This one.
    Listener(&'a Arc<ListenerTable<T>>),
    /// Another one than the one that the TLS handshake chose: 421.
    Misdirected,
    /// None: 404.
    Nobody,
}

impl<T> Clone for Router<T> {
    fn clone(&self) -> Self {
        Self { tables: self.tables.clone(), ports: self.ports.clone(), routes: self.routes.clone() }
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { tables: Arc::default(), ports: Arc::default(), routes: Arc::default() }
    }
}

impl<T> Clone for PortTable<T> {
    fn clone(&self) -> Self {
        Self { listeners: self.listeners.clone() }
    }
}

impl<T> Clone for ListenerTable<T> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), listener: self.listener.clone(), hosts: self.hosts.clone() }
    }
}

impl<T> Router<T> {
    /// Serves nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The listeners of the socket that a connection came in by.
    pub fn port(&self, bind: Bind) -> Option<&PortTable<T>> {
        self.ports.get(&bind).map(|table| &**table)
    }

    /// Every socket that a listener needs.
    pub fn binds(&self) -> impl Iterator<Item = Bind> + '_ {
        self.ports.keys().copied()
    }

    /// Adds or replaces a route. `make` gives the compiled rule for an index into `route.rules`; it is called once for
    /// each rule. Attachments to listeners that are not there yet count from the moment when they are.
    pub fn upsert_route(&mut self, route: Arc<Route>, mut make: impl FnMut(usize) -> Arc<T>) {
        self.remove_route(&route.key);
        let rules: Vec<Arc<T>> = (0..route.rules.len()).map(&mut make).collect();
        for attachment in &route.attachments {
            self.edit(&attachment.listener, |table| {
                for host in &attachment.hosts {
                    let entries = table.hosts.entry(&host.served);
                    let entries = Arc::make_mut(entries);
                    for (rule_index, (rule, compiled)) in route.rules.iter().zip(&rules).enumerate() {
                        for (match_index, wanted) in rule.matches.iter().enumerate() {
                            let order = Order::new(&route, rule_index, match_index);
                            entries.insert(&host.declared, wanted, order, compiled.clone());
                        }
                    }
                }
            });
        }
        Arc::make_mut(&mut self.routes).insert(route.key.clone(), route);
    }

    /// Removes a route; does nothing where there is none.
    pub fn remove_route(&mut self, key: &RouteKey) {
        if !self.routes.contains_key(key) {
            return;
        }
        let Some(route) = Arc::make_mut(&mut self.routes).remove(key) else { return };
        for attachment in &route.attachments {
            self.edit(&attachment.listener, |table| {
                for host in &attachment.hosts {
                    table.hosts.remove_from(&host.served, |entries| {
                        entries.remove(&host.declared, &route);
                        entries.is_empty()
                    });
                }
            });
        }
    }

    /// Adds or replaces a listener. Its routes stay.
    pub fn upsert_listener(&mut self, listener: Arc<Listener>) {
        let key = listener.key.clone();
        self.unbind(&key);
        self.edit(&key, |table| table.listener = Some(listener));
    }

    /// Removes a listener; does nothing where there is none. Routes that name it stay for when it comes back.
    pub fn remove_listener(&mut self, key: &ListenerKey) {
        self.unbind(key);
        if self.tables.contains_key(key) {
            self.edit(key, |table| table.listener = None);
        }
    }

    /// Takes a listener out of its sockets' tables.
    fn unbind(&mut self, key: &ListenerKey) {
        let Some(listener) = self.tables.get(key).and_then(|table| table.listener.clone()) else { return };
        let ports = Arc::make_mut(&mut self.ports);
        for bind in Bind::of(&listener) {
            let Some(port) = ports.get_mut(&bind) else { continue };
            let port = Arc::make_mut(port);
            port.listeners.remove_from(&listener.hostname, |listeners| {
                listeners.remove(key);
                listeners.is_empty()
            });
            if port.listeners.is_empty() {
                ports.remove(&bind);
            }
        }
    }

    /// Changes one listener's table and shows the change to its sockets.
    fn edit(&mut self, key: &ListenerKey, change: impl FnOnce(&mut ListenerTable<T>)) {
        let tables = Arc::make_mut(&mut self.tables);
        let listener = tables.get(key).and_then(|table| table.listener.clone());
        // The sockets let go of the table first: else it would be copied although nobody reads the old one.
        let binds: Vec<Bind> = listener.iter().flat_map(|listener| Bind::of(listener)).collect();
        if let Some(listener) = &listener {
            let ports = Arc::make_mut(&mut self.ports);
            for bind in &binds {
                if let Some(port) = ports.get_mut(bind) {
                    Arc::make_mut(Arc::make_mut(port).listeners.entry(&listener.hostname)).remove(key);
                }
            }
        }
        let table = tables
            .entry(key.clone())
            .or_insert_with(|| Arc::new(ListenerTable { key: key.clone(), listener: None, hosts: Hosts::default() }));
        change(Arc::make_mut(table));
        let table = table.clone();
        if let Some(listener) = &table.listener {
            let ports = Arc::make_mut(&mut self.ports);
            for bind in Bind::of(listener) {
                let port = ports.entry(bind).or_insert_with(|| Arc::new(PortTable { listeners: Hosts::default() }));
                Arc::make_mut(Arc::make_mut(port).listeners.entry(&listener.hostname))
                    .insert(key.clone(), table.clone());
            }
        } else if table.hosts.is_empty() {
            tables.remove(key);
        }
    }
}

impl<T> PortTable<T> {
    /// Every listener of the socket.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> + '_ {
        self.listeners.all().flat_map(|listeners| listeners.values().filter_map(|table| table.listener.as_ref()))
    }

    /// The listener with the most specific hostname that serves `host` (lower case): by SNI for a handshake (no SNI:
    /// `None`, which only a listener for every host serves), by host for a request.
    pub fn listener(&self, host: Option<&str>) -> Option<&Arc<ListenerTable<T>>> {
        self.listeners.find_map(host, |listeners| listeners.values().next())
    }

    /// The listener for a request for `host`. `handshake` is what the TLS handshake chose; `None` without TLS.
    ///
    /// Another listener than the handshake's is a misdirected request (RFC 9110 §15.5.20; Gateway API feature
    /// `GatewayHTTPSListenerDetectMisdirectedRequests`): that listener's routes may ask for what this connection has
    /// not shown.
    pub fn serving(&self, handshake: Option<&ListenerKey>, host: &str) -> Served<'_, T> {
        match (self.listener(Some(host)), handshake) {
            (None, _) => Served::Nobody,
            (Some(listener), Some(key)) if listener.key != *key => Served::Misdirected,
            (Some(listener), _) => Served::Listener(listener),
        }
    }
}

impl<T> ListenerTable<T> {
    /// Its name.
    pub fn key(&self) -> &ListenerKey {
        &self.key
    }

    /// Its configuration; always there in a table that a [`PortTable`] gives.
    pub fn listener(&self) -> Option<&Arc<Listener>> {
        self.listener.as_ref()
    }

    /// The rule that takes the request, if any does.
    pub fn find(&self, request: &RequestView<'_>) -> Option<Matched<'_, T>> {
        self.hosts.find_map(Some(request.host), |table| table.find(request))
    }
}

#[cfg(test)]
mod tests;
