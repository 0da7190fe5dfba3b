//! What the command line and the environment say, checked once. The only place of the gateway that reads either.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU16, num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{ArgGroup, Parser, ValueEnum};
use control_plane_model::{GatewayKey, ObjectName};
use http::Uri;

/// Serves HTTP as Gateway API resources say, read from a folder or from a Nebula control plane.
///
/// Try it: gateway --config gateway/examples/quickstart
#[derive(Debug, Parser)]
#[command(name = "gateway", version, about, max_term_width = 110)]
#[command(group = ArgGroup::new("source").required(true).args(["config", "discovery"]))]
struct Arguments {
    /// Folder of YAML files to serve; a change takes effect at once
    #[arg(long, value_name = "DIR", env = "NEBULA_CONFIG")]
    config: Option<PathBuf>,

    /// Check the files of --config, list what is wrong (file:line:column: field: message) and exit: 0 for nothing, 1 else
    #[arg(long, requires = "config", conflicts_with = "discovery")]
    check: bool,

    /// Control plane to take the configuration from: https://host:port
    #[arg(long, value_name = "URL", env = "NEBULA_DISCOVERY", requires_all = ["gateway", "token_file", "ca_file"])]
    discovery: Option<Uri>,

    /// The Gateway to serve, with --discovery
    #[arg(long, value_name = "NAMESPACE/NAME", env = "NEBULA_GATEWAY", value_parser = gateway_key)]
    gateway: Option<GatewayKey>,

    /// ServiceAccount token to show to the control plane; read again for each connection
    #[arg(long, value_name = "FILE", env = "NEBULA_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// PEM bundle of the authorities that may sign the control plane's certificate; read again for each connection
    #[arg(long, value_name = "FILE", env = "NEBULA_CA_FILE")]
    ca_file: Option<PathBuf>,

    /// This process's name in the control plane's log
    #[arg(long, value_name = "NAME", env = "HOSTNAME", default_value = "gateway")]
    proxy: String,

    /// Admin port (GET / lists what it shows); loopback only
    #[arg(long, value_name = "ADDRESS", env = "NEBULA_ADMIN_ADDRESS", default_value = "127.0.0.1:19000")]
    admin_address: SocketAddr,

    /// Telemetry port (/healthz, /readyz, /metrics) [default: 127.0.0.1:15020, with --discovery 0.0.0.0:15020]
    #[arg(long, value_name = "ADDRESS", env = "NEBULA_TELEMETRY_ADDRESS")]
    telemetry_address: Option<SocketAddr>,

    /// Threads that serve traffic [default: one for each core]
    #[arg(long, value_name = "N", env = "NEBULA_WORKERS")]
    workers: Option<NonZeroUsize>,

    /// Binds another port than a listener names: 8080=18080 (repeatable)
    #[arg(long, value_name = "LISTENER=BOUND", env = "NEBULA_PORT_MAP", value_delimiter = ',', value_parser = port_pair)]
    port_map: Vec<(NonZeroU16, NonZeroU16)>,

    /// Log filter: a level, or `info,gateway_engine=debug`
    #[arg(long, value_name = "FILTER", env = "NEBULA_LOG", default_value = "info")]
    log: String,

    /// How log lines look [default: text, with --discovery json]
    #[arg(long, value_name = "FORMAT", env = "NEBULA_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// How long requests may take to end after SIGTERM: 30s, 500ms, 2m
    #[arg(long, value_name = "TIME", env = "NEBULA_DRAIN_TIMEOUT", default_value = "30s", value_parser = duration)]
    drain_timeout: Duration,

    /// How long to keep accepting after SIGTERM, while readiness fails already [default: 0s, with --discovery 5s]
    #[arg(long, value_name = "TIME", env = "NEBULA_DRAIN_DELAY", value_parser = duration)]
    drain_delay: Option<Duration>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// YAML files of a folder.
    Files(PathBuf),
    /// A control plane.
    Discovery(Discovery),
}

/// How to reach the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// `https://host:port`.
    pub endpoint: Uri,
    /// The Gateway that this process serves.
    pub gateway: GatewayKey,
    /// The token's file.
    pub token_file: PathBuf,
    /// The authorities' file.
    pub ca_file: PathBuf,
}

/// The gateway's settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the configuration comes from.
    pub source: Source,
    /// This process's name in the control plane's log.
    pub proxy: String,
    /// Only check the files.
    pub check: bool,
    /// A loopback address.
    pub admin_address: SocketAddr,
    /// Health, readiness, metrics.
    pub telemetry_address: SocketAddr,
    /// Serving threads; `None` for one a core.
    pub workers: Option<NonZeroUsize>,
    /// Bound port by the port that a listener names.
    pub port_map: BTreeMap<NonZeroU16, NonZeroU16>,
    /// Filter of the process's own log.
    pub log: String,
    /// Its look.
    pub log_format: LogFormat,
    /// From the end of the delay until requests are cut.
    pub drain_timeout: Duration,
    /// From SIGTERM until nothing new is accepted.
    pub drain_delay: Duration,
}

impl Settings {
    /// Reads the command line and the environment.
    ///
    /// # Errors: clap's error, which is also how `--help` and `--version` come; print it and exit with its code.
    pub fn from_process() -> Result<Self, clap::Error> {
        Self::from_arguments(std::env::args_os())
    }

    /// Reads `arguments`, of which the first is the program's name, and the environment.
    ///
    /// # Errors: as [`Self::from_process`].
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        Arguments::try_parse_from(arguments)?.check()
    }
}

impl Arguments {
    fn check(self) -> Result<Settings, clap::Error> {
        let refuse = |message: String| {
            let mut command = <Arguments as clap::CommandFactory>::command();
            Err(command.error(clap::error::ErrorKind::ValueValidation, message))
        };
        if !self.admin_address.ip().is_loopback() {
            return refuse(format!(
                "--admin-address {}: the admin port has no password, so it takes a loopback address only",
                self.admin_address
            ));
        }
        let source = match (self.config, self.discovery, self.gateway, self.token_file, self.ca_file) {
            (Some(folder), None, ..) => Source::Files(folder),
            (None, Some(endpoint), Some(gateway), Some(token_file), Some(ca_file)) => {
                if endpoint.scheme_str() != Some("https") || endpoint.port().is_none() {
                    return refuse(format!("--discovery {endpoint}: want https://host:port"));
                }
                Source::Discovery(Discovery { endpoint, gateway, token_file, ca_file })
            }
            _ => {
                return refuse(
                    "give either --config, or --discovery with --gateway, --token-file and --ca-file".into(),
                );
            }
        };
        let mut port_map = BTreeMap::new();
        for (listener, bound) in self.port_map {
            if port_map.insert(listener, bound).is_some() {
                return refuse(format!("--port-map names port {listener} twice"));
            }
        }
        let in_cluster = matches!(source, Source::Discovery(_));
        let telemetry_host = if in_cluster { [0, 0, 0, 0] } else { [127, 0, 0, 1] };
        Ok(Settings {
            proxy: self.proxy,
            check: self.check,
            admin_address: self.admin_address,
            telemetry_address: self.telemetry_address.unwrap_or_else(|| (telemetry_host, 15020).into()),
            workers: self.workers,
            port_map,
            log: self.log,
            log_format: self.log_format.unwrap_or(if in_cluster { LogFormat::Json } else { LogFormat::Text }),
            drain_timeout: self.drain_timeout,
            drain_delay: self.drain_delay.unwrap_or(Duration::from_secs(if in_cluster { 5 } else { 0 })),
            source,
        })
    }
}

fn gateway_key(text: &str) -> Result<GatewayKey, String> {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
            Ok(GatewayKey(ObjectName::new(*namespace, *name)))
        }
        _ => Err("want namespace/name".to_owned()),
    }
}

fn port_pair(text: &str) -> Result<(NonZeroU16, NonZeroU16), String> {
    text.split_once('=')
        .and_then(|(listener, bound)| Some((listener.parse().ok()?, bound.parse().ok()?)))
        .ok_or_else(|| "want the listener's port and the port to bind, such as 8080=18080".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number = number.parse::<u32>().ok();
    match (number, unit) {
        (Some(number), "ms") => Ok(Duration::from_millis(number.into())),
        (Some(number), "s") => Ok(Duration::from_secs(number.into())),
        (Some(number), "m") => Ok(Duration::from_secs(u64::from(number) * 60)),
        _ => Err("want a whole number with a unit: 500ms, 30s, 2m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &str) -> Result<Settings, String> {
        let words = std::iter::once("gateway").chain(arguments.split_whitespace());
        Settings::from_arguments(words).map_err(|error| error.to_string())
    }

    const IN_CLUSTER: &str = "--discovery https://control:15010 --gateway infra/edge --token-file /t --ca-file /c";

    #[test]
    fn a_folder_is_served_on_loopback_and_ends_without_delay() {
        let settings = settings("--config here --port-map 80=8080 --port-map 443=8443").unwrap();
        assert_eq!(settings.source, Source::Files("here".into()));
        assert_eq!(settings.telemetry_address, "127.0.0.1:15020".parse().unwrap());
        assert_eq!(settings.drain_delay, Duration::ZERO);
        assert_eq!(settings.port_map.len(), 2);
    }

    #[test]
    fn in_a_cluster_telemetry_is_on_the_pods_address_and_the_drain_waits_for_endpoints_to_follow() {
        let settings = settings(IN_CLUSTER).unwrap();
        let Source::Discovery(discovery) = &settings.source else { panic!("{settings:?}") };
        assert_eq!(discovery.gateway.to_string(), "infra/edge");
        assert_eq!(settings.telemetry_address, "0.0.0.0:15020".parse().unwrap());
        assert_eq!(settings.drain_delay, Duration::from_secs(5));
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_flag_that_says_it() {
        for (arguments, flag) in [
            ("", "--config"),
            ("--config a --discovery https://control:1", "cannot be used with"),
            ("--discovery https://control:15010", "--gateway"),
            ("--discovery http://control:15010 --gateway a/b --token-file t --ca-file c", "--discovery"),
            ("--config a --admin-address 0.0.0.0:19000", "--admin-address"),
            ("--config a --port-map 80", "--port-map"),
            ("--config a --port-map 80=1 --port-map 80=2", "--port-map"),
            ("--config a --drain-timeout 30", "--drain-timeout"),
            ("--config a --workers 0", "--workers"),
        ] {
            let error = settings(arguments).unwrap_err();
            assert!(error.contains(flag), "{arguments}: {error}");
        }
    }
}
