//! What the process itself uses, read from /proc when the metrics are read. The names are Prometheus's usual ones.

use std::fmt;

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType, registry::Registry};

/// Registers `process_resident_memory_bytes` and `process_open_fds`, under the registry's prefix.
pub fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Usage));
}

#[derive(Debug)]
struct Usage;

impl Collector for Usage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory", resident_bytes()),
            ("process_open_fds", "Open file descriptors", open_descriptors()),
        ];
        for (name, help, value) in gauges {
            // What cannot be read has no series.
            if let Some(value) = value {
                encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

/// `VmRSS` of proc_pid_status(5), which is in kibibytes.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    resident.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Entries of /proc/self/fd; one of them is the one that reads it.
fn open_descriptors() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(entries).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_and_the_descriptors_of_a_running_process_are_not_zero() {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in ["process_resident_memory_bytes ", "process_open_fds "] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            assert!(value.parse::<u64>().unwrap() > 2, "{name}{value}");
        }
    }
}
