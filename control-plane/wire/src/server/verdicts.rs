//! What the proxies of each Gateway refuse, gathered for the status writer.
//!
//! Invariant: a report is the union over the Gateway's proxies, and the next report replaces it. While no proxy of a Gateway
//! is connected, what the last ones said stands for a minute, so that one that connects anew does not make a status flap;
//! not longer, as it may have gone to another replica.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use control_plane_model::{GatewayKey, ResourceKey};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{ProxyIdentity, hub::Shared};

/// How long verdicts stand after the last of a Gateway's proxies has gone.
const GRACE: Duration = Duration::from_mins(1);

/// What the proxies of one Gateway refuse at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The Gateway.
    pub gateway: GatewayKey,
    /// Each refused object with the reason of one of the proxies. Empty: they take everything.
    pub refused: Arc<BTreeMap<ResourceKey, String>>,
}

/// Reports as they change. A reader that is slow sees the last one of each Gateway.
#[derive(Debug)]
pub struct Reports {
    hub: Arc<Shared>,
    revision: watch::Receiver<u64>,
    seen: u64,
}

impl Reports {
    pub(super) fn new(hub: Arc<Shared>, revision: watch::Receiver<u64>) -> Self {
        Self { hub, revision, seen: 0 }
    }

    /// The next report: at first the present one of each Gateway that ever had a refusal, then each change. Cancel-safe.
    pub async fn next(&mut self) -> Report {
        loop {
            self.revision.mark_unchanged();
            let expiry = self.hub.expire_verdicts(Instant::now());
            if let Some((revision, report)) = self.hub.report_after(self.seen) {
                self.seen = revision;
                return report;
            }
            // Without an expiry the sender wakes us when there is one. It lives in `self.hub`, so it cannot be gone.
            tokio::select! {
                _ = self.revision.changed() => {}
                () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {}
            }
        }
    }
}

#[derive(Debug)]
struct Verdict {
    /// `None` once the proxy's stream has ended.
    stream: Option<u64>,
    refused: BTreeMap<ResourceKey, String>,
}

/// The verdicts of all proxies.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    proxies: BTreeMap<GatewayKey, BTreeMap<String, Verdict>>,
    /// Gateways whose proxies are all gone, and since when.
    orphaned: BTreeMap<GatewayKey, Instant>,
    /// Objects that were never sent, as they are too large, with the Gateways that would have them.
    unsendable: BTreeMap<ResourceKey, (BTreeSet<GatewayKey>, String)>,
    reports: BTreeMap<GatewayKey, (u64, Arc<BTreeMap<ResourceKey, String>>)>,
    revision: u64,
}

impl Verdicts {
    /// Replaces what a proxy refuses.
    pub(super) fn acknowledge(&mut self, proxy: &ProxyIdentity, stream: u64, refused: BTreeMap<ResourceKey, String>) {
        let proxies = self.proxies.entry(proxy.gateway.clone()).or_default();
        // By far the most Acks say what the one before said.
        if let Some(verdict) = proxies.get_mut(&proxy.pod)
            && verdict.refused == refused
            && !self.orphaned.contains_key(&proxy.gateway)
        {
            verdict.stream = Some(stream);
            return;
        }
        proxies.insert(proxy.pod.clone(), Verdict { stream: Some(stream), refused });
        if self.orphaned.remove(&proxy.gateway).is_some() {
            proxies.retain(|_, verdict| verdict.stream.is_some());
        }
        self.update(&proxy.gateway);
    }

    /// A proxy's stream has ended.
    pub(super) fn disconnect(&mut self, proxy: &ProxyIdentity, stream: u64, now: Instant) {
        let Some(proxies) = self.proxies.get_mut(&proxy.gateway) else { return };
        let Some(verdict) = proxies.get_mut(&proxy.pod) else { return };
        if verdict.stream != Some(stream) {
            // It has connected anew meanwhile.
            return;
        }
        verdict.stream = None;
        if proxies.values().any(|verdict| verdict.stream.is_some()) {
            proxies.remove(&proxy.pod);
            self.update(&proxy.gateway);
        } else {
            self.orphaned.insert(proxy.gateway.clone(), now);
        }
    }

    /// Drops verdicts that have stood long enough without a proxy. Returns when the next ones will have.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        let expired: Vec<_> = self
            .orphaned
            .iter()
            .filter(|(_, since)| now >= **since + GRACE)
            .map(|(gateway, _)| gateway.clone())
            .collect();
        for gateway in expired {
            self.orphaned.remove(&gateway);
            self.proxies.remove(&gateway);
            self.update(&gateway);
        }
        self.orphaned.values().min().map(|since| *since + GRACE)
    }

    /// `key` has changed or is gone: what proxies without a stream say of it no longer counts, and those with one will
    /// speak again.
    pub(super) fn forget(&mut self, key: &ResourceKey) {
        let mut gateways: BTreeSet<GatewayKey> = BTreeSet::new();
        for gateway in self.orphaned.keys() {
            for verdict in self.proxies.get_mut(gateway).into_iter().flat_map(BTreeMap::values_mut) {
                if verdict.stream.is_none() && verdict.refused.remove(key).is_some() {
                    gateways.insert(gateway.clone());
                }
            }
        }
        if let Some((affected, _)) = self.unsendable.remove(key) {
            gateways.extend(affected);
        }
        for gateway in gateways {
            self.update(&gateway);
        }
    }

    /// `key` cannot be sent to the proxies of `gateways`.
    pub(super) fn unsendable(&mut self, key: ResourceKey, gateways: BTreeSet<GatewayKey>, error: String) {
        self.forget(&key);
        self.unsendable.insert(key, (gateways.clone(), error));
        for gateway in gateways {
            self.update(&gateway);
        }
    }

    /// How many objects a proxy refuses.
    pub(super) fn refused_by(&self, proxy: &ProxyIdentity) -> usize {
        let verdict = self.proxies.get(&proxy.gateway).and_then(|proxies| proxies.get(&proxy.pod));
        verdict.map_or(0, |verdict| verdict.refused.len())
    }

    /// Counts up with each changed report.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest report that is newer than `seen`.
    pub(super) fn report_after(&self, seen: u64) -> Option<(u64, Report)> {
        let newer = self.reports.iter().filter(|(_, (revision, _))| *revision > seen);
        newer.min_by_key(|(_, (revision, _))| *revision).map(|(gateway, (revision, refused))| {
            (*revision, Report { gateway: gateway.clone(), refused: refused.clone() })
        })
    }

    fn update(&mut self, gateway: &GatewayKey) {
        let mut refused = BTreeMap::new();
        for (key, (gateways, error)) in &self.unsendable {
            if gateways.contains(gateway) {
                refused.insert(key.clone(), error.clone());
            }
        }
        for verdict in self.proxies.get(gateway).into_iter().flat_map(BTreeMap::values) {
            refused.extend(verdict.refused.iter().map(|(key, error)| (key.clone(), error.clone())));
        }
        let same = match self.reports.get(gateway) {
            Some((_, before)) => **before == refused,
            None => refused.is_empty(),
        };
        if !same {
            self.revision += 1;
            self.reports.insert(gateway.clone(), (self.revision, Arc::new(refused)));
        }
    }
}

#[cfg(test)]
mod tests {
    use control_plane_model::{CertificateKey, ObjectName};

    use super::*;

    fn proxy(pod: &str) -> ProxyIdentity {
        ProxyIdentity { gateway: GatewayKey(ObjectName::new("infra", "edge")), pod: pod.to_owned() }
    }

    fn refused(names: &[&str]) -> BTreeMap<ResourceKey, String> {
        let key = |name: &&str| ResourceKey::Certificate(CertificateKey(ObjectName::new("infra", *name)));
        names.iter().map(|name| (key(name), "no".to_owned())).collect()
    }

    fn report(verdicts: &Verdicts) -> BTreeMap<ResourceKey, String> {
        verdicts.report_after(0).map(|(_, report)| (*report.refused).clone()).unwrap_or_default()
    }

    #[test]
    fn a_report_is_what_any_proxy_refuses() {
        let mut verdicts = Verdicts::default();
        verdicts.acknowledge(&proxy("a"), 1, refused(&["x"]));
        verdicts.acknowledge(&proxy("b"), 2, refused(&["y"]));
        assert_eq!(report(&verdicts), refused(&["x", "y"]));
        verdicts.acknowledge(&proxy("a"), 1, refused(&[]));
        assert_eq!(report(&verdicts), refused(&["y"]));
    }

    #[test]
    fn the_last_verdict_stands_until_a_proxy_speaks_again() {
        let mut verdicts = Verdicts::default();
        verdicts.acknowledge(&proxy("old"), 1, refused(&["x"]));
        verdicts.disconnect(&proxy("old"), 1, Instant::now());
        assert_eq!(report(&verdicts), refused(&["x"]));
        verdicts.acknowledge(&proxy("new"), 2, refused(&[]));
        assert_eq!(report(&verdicts), refused(&[]));
    }

    #[test]
    fn the_last_verdict_stands_for_a_minute_at_most() {
        let mut verdicts = Verdicts::default();
        let gone = Instant::now();
        verdicts.acknowledge(&proxy("old"), 1, refused(&["x"]));
        verdicts.disconnect(&proxy("old"), 1, gone);
        assert_eq!(verdicts.expire(gone + GRACE / 2), Some(gone + GRACE));
        assert_eq!(report(&verdicts), refused(&["x"]));
        assert_eq!(verdicts.expire(gone + GRACE), None);
        assert_eq!(report(&verdicts), refused(&[]));
    }

    #[test]
    fn a_proxy_that_goes_while_another_stays_has_no_say() {
        let mut verdicts = Verdicts::default();
        verdicts.acknowledge(&proxy("old"), 1, refused(&["x"]));
        verdicts.acknowledge(&proxy("new"), 2, refused(&[]));
        verdicts.disconnect(&proxy("old"), 1, Instant::now());
        assert_eq!(report(&verdicts), refused(&[]));
    }

    #[test]
    fn the_end_of_a_stream_that_was_replaced_changes_nothing() {
        let mut verdicts = Verdicts::default();
        verdicts.acknowledge(&proxy("a"), 1, refused(&["x"]));
        verdicts.acknowledge(&proxy("a"), 2, refused(&["x"]));
        verdicts.disconnect(&proxy("a"), 1, Instant::now());
        verdicts.acknowledge(&proxy("b"), 3, refused(&[]));
        assert_eq!(report(&verdicts), refused(&["x"]));
    }

    #[test]
    fn an_ack_that_says_nothing_new_makes_no_report() {
        let mut verdicts = Verdicts::default();
        verdicts.acknowledge(&proxy("a"), 1, refused(&["x"]));
        let revision = verdicts.revision();
        verdicts.acknowledge(&proxy("a"), 1, refused(&["x"]));
        verdicts.acknowledge(&proxy("b"), 2, refused(&["x"]));
        assert_eq!(verdicts.revision(), revision);
    }
}
