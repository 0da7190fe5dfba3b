//! `cargo xtask bench propagation`: from a route's create to its first 200, in a cluster.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use super::report;
use crate::images::Profile;
use crate::install;
use crate::settings::Settings;
use crate::shell;
use crate::target::{self, Choice};

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Samples of each run.
    #[arg(long, default_value_t = 500)]
    samples: usize,
    /// How many routes are there before the samples; one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "0,5000")]
    routes: Vec<usize>,
    /// Measure what is installed, without compiling and installing first.
    #[arg(long)]
    no_install: bool,
    #[command(flatten)]
    cluster: Choice,
}

/// Measures and reports.
///
/// # Errors: no cluster, a route that is not served, or answers that were errors (the report is written nevertheless).
pub fn run(settings: &Settings, options: &Options) -> Result<()> {
    let program = build(settings)?;
    let printed = target::with(settings, &options.cluster, |kubernetes| {
        if !options.no_install {
            install::install(settings, kubernetes, Profile::Measure)?;
        }
        let routes: Vec<String> = options.routes.iter().map(ToString::to_string).collect();
        let mut measure = Command::new(&program);
        measure.env("KUBECONFIG", kubernetes.kubeconfig());
        measure.args(["--samples", &options.samples.to_string(), "--routes", &routes.join(",")]);
        // Its progress is for the user to see.
        let output = measure.stderr(std::process::Stdio::inherit()).output().context("start the measurement")?;
        ensure!(output.status.success(), "the measurement failed ({})", output.status);
        Ok(String::from_utf8(output.stdout)?)
    })?;
    let runs: Vec<Value> = serde_json::from_str(&printed).context("read the measurement's report")?;
    report::write(&settings.file("target/bench"), "propagation.json", &runs)?;
    print(&runs);
    let errors: u64 = runs.iter().filter_map(|run| run.get("errors")?.as_u64()).sum();
    ensure!(errors == 0, "{errors} answers were errors");
    Ok(())
}

fn build(settings: &Settings) -> Result<std::path::PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&settings.repository).env("CARGO_TARGET_DIR", &settings.target);
    shell::run(cargo.args(["build", "--locked", "--package", "e2e-bench-propagation"]))?;
    Ok(settings.target.join("debug/e2e-bench-propagation"))
}

/// Two rounds of one case are the same measurement twice: their distance is the noise.
fn print(runs: &[Value]) {
    println!("\nfrom a route's create (201) to its first 200:");
    println!("| case | round | samples | p50 ms | p90 ms | p99 ms | worst ms | errors | gateway RSS MB | series |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for run in runs {
        let text = |field: &str| run.get(field).map_or_else(String::new, |value| value.to_string().replace('"', ""));
        let milliseconds = |field: &str| run.get(field).and_then(Value::as_f64).unwrap_or_default();
        println!(
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {:.1} | {} |",
            text("case"),
            text("round"),
            text("samples"),
            milliseconds("p50_ms"),
            milliseconds("p90_ms"),
            milliseconds("p99_ms"),
            milliseconds("max_ms"),
            text("errors"),
            milliseconds("rss_bytes") / 1e6,
            text("series"),
        );
    }
}
