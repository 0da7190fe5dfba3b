//! Metrics of the control plane. Labels are kinds and outcomes: closed sets, never names of objects.

use std::{sync::Arc, time::Duration};

use control_plane_wire::server::Hub;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};
use tokio::time::Instant;

type Label = [(&'static str, &'static str); 1];

/// Buckets from 100 µs to 10 s: translation aims at less than 10 ms.
const BUCKETS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];

/// Every metric; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Time that the translator takes for one batch.
    pub translate: Histogram,
    /// From the receipt of a batch's first event to its publication to the proxies.
    pub publish: Histogram,
    /// Objects of the snapshot.
    pub resources: Family<Label, Gauge>,
    /// Status writes.
    pub status_writes: Family<Label, Counter>,
    /// Changes of what runs for Gateways.
    pub provisions: Family<Label, Counter>,
    /// Events written, and those dropped to keep the rate.
    pub events: Family<Label, Counter>,
    /// Whether this replica leads: 1 or 0.
    pub leader: Gauge,
    /// The watches.
    pub watches: WatchMetrics,
}

/// State of the watches.
#[derive(Clone, Debug, Default)]
pub struct WatchMetrics {
    up: Family<Label, Gauge>,
    failures: Family<Label, Counter>,
    last_event: Family<Label, Gauge>,
    unreadable: Family<Label, Gauge>,
    start: Option<Arc<Instant>>,
}

impl Metrics {
    /// Registers every metric.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            translate: Histogram::new(BUCKETS),
            publish: Histogram::new(BUCKETS),
            resources: Family::default(),
            status_writes: Family::default(),
            provisions: Family::default(),
            events: Family::default(),
            leader: Gauge::default(),
            watches: WatchMetrics { start: Some(Arc::new(Instant::now())), ..WatchMetrics::default() },
        };
        let registry = registry.sub_registry_with_prefix("control_plane");
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "translate_duration",
            "Translation of one batch",
            seconds(),
            metrics.translate.clone(),
        );
        let text = "From the receipt of a change to its publication to the proxies";
        registry.register_with_unit("publish_duration", text, seconds(), metrics.publish.clone());
        registry.register("resources", "Objects of the configuration", metrics.resources.clone());
        registry.register("status_writes", "Status writes by outcome", metrics.status_writes.clone());
        registry.register("provisions", "Changes of what runs for Gateways by outcome", metrics.provisions.clone());
        registry.register("events", "Kubernetes events by outcome", metrics.events.clone());
        registry.register("leader", "Whether this replica leads", metrics.leader.clone());
        let watches = &metrics.watches;
        registry.register("watch_up", "Whether the watch of a kind is whole", watches.up.clone());
        registry.register("watch_failures", "Failures of the watch of a kind", watches.failures.clone());
        let text = "When the watch of a kind last heard of the API server, since the process began";
        registry.register_with_unit("watch_last_event", text, seconds(), watches.last_event.clone());
        let text = "Objects of a kind that cannot be read as they are now";
        registry.register("watch_unreadable_objects", text, watches.unreadable.clone());
        metrics
    }

    /// Counts one status write.
    pub fn status_write(&self, outcome: &'static str) {
        self.status_writes.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts one change of what runs for a Gateway.
    pub fn provision(&self, outcome: &'static str) {
        self.provisions.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts one event.
    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Sets the number of objects of one kind.
    pub fn resources(&self, kind: &'static str, count: usize) {
        self.resources.get_or_create(&[("kind", kind)]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

impl WatchMetrics {
    /// The watch of `kind` failed.
    pub fn broken(&self, kind: &'static str) {
        self.up.get_or_create(&[("kind", kind)]).set(0);
        self.failures.get_or_create(&[("kind", kind)]).inc();
    }

    /// The watch of `kind` heard of the API server.
    pub fn alive(&self, kind: &'static str) {
        self.up.get_or_create(&[("kind", kind)]).set(1);
        let age = self.start.as_ref().map_or(Duration::ZERO, |start| start.elapsed());
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.last_event.get_or_create(&[("kind", kind)]).set(seconds);
    }

    /// So many objects of `kind` cannot be read as they are now.
    pub fn unreadable(&self, kind: &'static str, count: usize) {
        self.unreadable.get_or_create(&[("kind", kind)]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Counts the connected proxies when it is asked.
#[derive(Debug)]
pub struct ProxyCount(pub Hub);

impl Collector for ProxyCount {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let proxies = self.0.proxies();
        let behind = proxies.iter().filter(|proxy| !proxy.up_to_date).count();
        let gauges = [
            ("control_plane_proxies", "Proxies with an open stream", proxies.len()),
            ("control_plane_proxies_behind", "Proxies that have yet to acknowledge what they were sent", behind),
        ];
        for (name, help, count) in gauges {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let refused = ConstCounter::new(self.0.refused_connections());
        let (name, help) = ("control_plane_discovery_connections_refused", "Connections beyond the limit");
        refused.encode(encoder.encode_descriptor(name, help, None, refused.metric_type())?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_described_in_the_documentation() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        registry.register_collector(Box::new(ProxyCount(Hub::new())));
        // What has counted nothing is not shown.
        metrics.watches.broken("Gateway");
        metrics.watches.alive("Gateway");
        metrics.watches.unreadable("Gateway", 1);
        metrics.resources("route", 1);
        metrics.status_write("written");
        metrics.provision("applied");
        metrics.event("written");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE control_plane_"));
        let shown: BTreeSet<String> = types
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| format!("{name}{}", if kind == "counter" { "_total" } else { "" }))
            .collect();
        let rows = include_str!("../../docs/control-plane.md").lines();
        let table =
            rows.skip_while(|row| *row != "| name | labels | says |").skip(2).take_while(|row| row.starts_with('|'));
        let names = table.filter_map(|row| row.split('|').nth(1)).flat_map(|names| names.split(','));
        let described: BTreeSet<String> = names.map(|name| name.trim().trim_matches('`').to_owned()).collect();
        assert_eq!(shown, described, "what is shown, and the table in docs/control-plane.md");
    }
}
