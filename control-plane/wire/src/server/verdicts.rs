//! What the proxies of each Gateway refuse, gathered for the status writer.
//!
//! Invariant: a report is the union over the Gateway's proxies, and the next report replaces it. A verdict outlives its
//! stream for a grace time, so that a proxy that connects anew does not make a status flap.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use control_plane_model::{GatewayKey, ResourceKey};
use tokio::{sync::watch, time::Instant};

use super::{ProxyIdentity, hub::Shared};

/// How long a verdict outlives its proxy's stream.
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
            if let Some((revision, report)) = self.hub.report_after(self.seen) {
                self.seen = revision;
                return report;
            }
            if self.revision.changed().await.is_err() {
                // The sender lives in `self.hub`, so it cannot be gone.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[derive(Debug)]
struct Verdict {
    stream: u64,
    refused: BTreeMap<ResourceKey, String>,
    gone: Option<Instant>,
}

/// The verdicts of all proxies.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    proxies: BTreeMap<ProxyIdentity, Verdict>,
    /// Objects that were never sent, as they are too large, with the Gateways that would have them.
    unsendable: BTreeMap<ResourceKey, (BTreeSet<GatewayKey>, String)>,
    reports: BTreeMap<GatewayKey, (u64, Arc<BTreeMap<ResourceKey, String>>)>,
    revision: u64,
}

impl Verdicts {
    /// Replaces what a proxy refuses.
    pub(super) fn acknowledge(
        &mut self,
        proxy: &ProxyIdentity,
        stream: u64,
        refused: BTreeMap<ResourceKey, String>,
        now: Instant,
    ) {
        // A proxy that is long gone has no say once another one has spoken.
        self.proxies.retain(|identity, verdict| {
            identity.gateway != proxy.gateway || verdict.gone.is_none_or(|gone| now.duration_since(gone) < GRACE)
        });
        self.proxies.insert(proxy.clone(), Verdict { stream, refused, gone: None });
        self.update(&proxy.gateway);
    }

    /// A proxy's stream has ended.
    pub(super) fn disconnect(&mut self, proxy: &ProxyIdentity, stream: u64, now: Instant) {
        if let Some(verdict) = self.proxies.get_mut(proxy).filter(|verdict| verdict.stream == stream) {
            verdict.gone = Some(now);
        }
    }

    /// `key` has changed or is gone: what proxies without a stream say of it no longer counts, and those with one will
    /// speak again.
    pub(super) fn forget(&mut self, key: &ResourceKey) {
        let mut gateways: BTreeSet<GatewayKey> = BTreeSet::new();
        for (identity, verdict) in &mut self.proxies {
            if verdict.gone.is_some() && verdict.refused.remove(key).is_some() {
                gateways.insert(identity.gateway.clone());
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
        self.proxies.get(proxy).map_or(0, |verdict| verdict.refused.len())
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
        for (identity, verdict) in &self.proxies {
            if identity.gateway == *gateway {
                refused.extend(verdict.refused.iter().map(|(key, error)| (key.clone(), error.clone())));
            }
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
