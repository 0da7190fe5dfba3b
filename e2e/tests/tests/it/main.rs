//! Tests of the product in a real cluster, one after the other: each owns the cluster while it runs.
//! Without a cluster they are reported as skipped, with the reason; `cargo xtask test` always runs them with one.

mod availability;
mod chart;
mod definitions;
mod exemplars;
mod gateways;
mod identity;
mod policies;
mod references;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use e2e_tests::kubernetes::{Kubernetes, Skip};

/// A behaviour, in words, and what shows it.
type Test = (&'static str, fn(&Kubernetes) -> Result<()>);

/// In the order they run. What takes the product away comes last and brings it back.
const TESTS: &[Test] = &[
    ("the chart installs a control plane that is ready", chart::installs),
    ("the API server checks a GatewayConfig and fills in its defaults", definitions::gateway_config),
    ("the API server checks policies", definitions::policies),
    ("a rate limit acts, its status says so, and an invalid one closes its route alone", policies::rate_limit_acts),
    ("a route leads to its backend and an edit shows at once", gateways::route_and_edit),
    ("a backend that does not exist answers 500 and the status says so", references::missing_backend),
    ("a grant taken away ends the traffic and the status says so", references::grant_taken_away),
    ("a missing Secret is told by its listener alone", references::missing_secret),
    ("a Gateway with the longest name serves", gateways::longest_name),
    ("infrastructure labels and annotations reach what is made", gateways::infrastructure),
    ("two Gateways of one namespace do not share an address", gateways::own_addresses),
    ("what was made for a Gateway goes with it", gateways::goes_with_its_gateway),
    ("a proxy that asks for another Gateway is refused", identity::foreign_gateway),
    ("a token for another audience is refused", identity::foreign_audience),
    ("a token of an account that belongs to no Gateway is refused", identity::foreign_account),
    ("the trace of a sampled request is found in a real Prometheus", exemplars::trace_in_prometheus),
    ("traffic goes on without its control plane", availability::control_plane_away),
    ("traffic and the control plane outlive an API server that hangs", availability::api_server_hangs),
    ("a proxy is replaced without a failed request", availability::proxy_rollout),
    ("an upgrade of the chart replaces the proxies and fails no request", chart::upgrade),
    ("without its control plane traffic goes on, and the chart leaves behind what is documented", chart::uninstall),
    ("the README's own commands install the product", chart::installs_as_the_readme_says),
];

/// As `cargo test -- FILTER` passes it on; settings come from the environment, set by `cargo xtask test`.
#[derive(Parser)]
struct Arguments {
    /// Run only tests whose name contains this.
    filter: Option<String>,
    /// The kubeconfig of a cluster with the product in it.
    #[arg(long, env = "NEBULA_E2E_CLUSTER")]
    cluster: Option<PathBuf>,
    #[arg(long, env = "NEBULA_E2E_HELM", default_value = "helm")]
    helm: PathBuf,
    #[arg(long, env = "NEBULA_E2E_KUBECTL", default_value = "kubectl")]
    kubectl: PathBuf,
    /// Only list the names.
    #[arg(long)]
    list: bool,
    /// Taken for the sake of the usual test runner; output is always shown.
    #[arg(long, hide = true)]
    nocapture: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen = |name: &str| arguments.filter.as_deref().is_none_or(|filter| name.contains(filter));
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| chosen(name)).collect();
    if arguments.list {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let Some(kubeconfig) = arguments.cluster else {
        println!(
            "skipped {} cluster tests: NEBULA_E2E_CLUSTER names no kubeconfig (cargo xtask test makes a cluster)",
            tests.len()
        );
        println!("test result: ok. 0 passed; 0 failed; {} ignored; 0 measured; 0 filtered out", tests.len());
        return ExitCode::SUCCESS;
    };
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned();
    let kubernetes = Kubernetes { kubeconfig, kubectl: arguments.kubectl, helm: arguments.helm, repository };
    let mut failed = Vec::new();
    let mut skipped = 0;
    for (name, test) in &tests {
        let verdict = match catch_unwind(AssertUnwindSafe(|| test(&kubernetes))) {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(error)) if error.is::<Skip>() => {
                skipped += 1;
                println!("skipped {name}: {error:#}");
                continue;
            }
            Ok(Err(error)) => format!("FAILED\n{error:#}\n"),
            Err(_) => "FAILED (panicked)".to_owned(),
        };
        if verdict != "ok" {
            failed.push(*name);
        }
        println!("test {name} ... {verdict}");
    }
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    for name in &failed {
        println!("failed: {name}");
    }
    let (passed, filtered) = (tests.len() - failed.len() - skipped, TESTS.len() - tests.len());
    println!(
        "test result: {result}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {filtered} filtered out",
        failed.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
