//! Settings of the control plane: flags, each with an environment variable. The one place that reads the environment.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use kit_process::logging;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogFormat> for logging::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// Nebula's control plane: turns Gateway API resources into proxy configuration, runs a proxy for each Gateway, and
/// writes status. The API server is found as kubectl finds it: KUBECONFIG, then the pod's ServiceAccount.
#[derive(Clone, Debug, Parser)]
#[command(name = "control-plane", version)]
pub struct Settings {
    /// Namespace that the control plane runs in: its Lease, its root certificate and its reports live there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "nebula-system")]
    pub namespace: String,

    /// Name of this replica, unique among the replicas: who holds the Lease, and whose reports are whose.
    #[arg(long, env = "POD_NAME", default_value = "control-plane")]
    pub pod_name: String,

    /// UID of this replica's pod. Where given, what the replica leaves in the cluster goes when the pod does.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: Option<String>,

    /// Service under which proxies reach the discovery port. The serving certificate is made for its names.
    #[arg(long, env = "NEBULA_SERVICE_NAME", default_value = "nebula-control-plane")]
    pub service_name: String,

    /// Domain of the cluster's own DNS names.
    #[arg(long, env = "NEBULA_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Image that the proxies of a Gateway run.
    #[arg(long, env = "NEBULA_GATEWAY_IMAGE", default_value = "nebula/gateway:dev")]
    pub gateway_image: String,

    /// Where proxies connect for their configuration (gRPC over TLS 1.3).
    #[arg(long, env = "NEBULA_DISCOVERY_ADDRESS", default_value = "0.0.0.0:15010")]
    pub discovery_address: SocketAddr,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "NEBULA_TELEMETRY_ADDRESS", default_value = "0.0.0.0:15020")]
    pub telemetry_address: SocketAddr,

    /// Which GatewayClasses are ours: those whose spec.controllerName is this.
    #[arg(long, env = "NEBULA_CONTROLLER_NAME", default_value = "nebula.dev/gateway-controller")]
    pub controller_name: String,

    /// What is logged: a level, or levels by module such as `info,control_plane=debug`.
    #[arg(long, env = "NEBULA_LOG", default_value = "info")]
    pub log: String,

    /// How log lines look.
    #[arg(long, env = "NEBULA_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
}

impl Settings {
    /// Every DNS name of the discovery Service, for the serving certificate.
    pub fn discovery_names(&self) -> Vec<String> {
        let Self { service_name, namespace, cluster_domain, .. } = self;
        vec![
            service_name.clone(),
            format!("{service_name}.{namespace}"),
            format!("{service_name}.{namespace}.svc"),
            format!("{service_name}.{namespace}.svc.{cluster_domain}"),
        ]
    }

    /// Where the proxies are told to connect.
    pub fn discovery_endpoint(&self) -> String {
        format!("https://{}.{}.svc:{}", self.service_name, self.namespace, self.discovery_address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_names_include_the_one_that_proxies_are_told_to_use() {
        let settings = Settings::try_parse_from(["control-plane", "--namespace", "edge"]).unwrap();
        assert_eq!(settings.discovery_endpoint(), "https://nebula-control-plane.edge.svc:15010");
        assert!(settings.discovery_names().contains(&"nebula-control-plane.edge.svc".to_owned()));
    }

    #[test]
    fn every_flag_parses() {
        use clap::CommandFactory as _;
        Settings::command().debug_assert();
    }
}
