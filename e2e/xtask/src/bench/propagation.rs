//! `cargo xtask bench propagation`: from a route's create to its first 200, in a cluster.

use std::collections::BTreeMap;
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
    /// How many of those routes have a policy of their own; one more policy is the Gateway's.
    #[arg(long, default_value_t = 0)]
    policies: usize,
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
        measure.args(["--policies", &options.policies.to_string()]);
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
    for (case, apart) in noise(runs) {
        println!("noise of {case}: p99 of its rounds, the same measurement again, lies {apart:.1} ms apart");
    }
}

/// How far the rounds of each case lie apart in `p99_ms` (A/A): what a difference must exceed to be one. A case that was
/// measured once says nothing about that.
fn noise(runs: &[Value]) -> Vec<(String, f64)> {
    let mut cases: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in runs {
        if let (Some(case), Some(p99)) =
            (run.get("case").and_then(Value::as_str), run.get("p99_ms").and_then(Value::as_f64))
        {
            cases.entry(case.to_owned()).or_default().push(p99);
        }
    }
    cases.retain(|_, rounds| rounds.len() > 1);
    let apart = |rounds: Vec<f64>| {
        let (least, most) =
            rounds.into_iter().fold((f64::MAX, f64::MIN), |(least, most), p99| (least.min(p99), most.max(p99)));
        most - least
    };
    cases.into_iter().map(|(case, rounds)| (case, apart(rounds))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_noise_is_the_distance_of_rounds_of_one_case() {
        let run = |case: &str, p99: f64| json!({"case": case, "p99_ms": p99});
        let runs = [run("routes-0", 8.0), run("routes-5000", 20.0), run("routes-0", 10.5), run("once", 1.0)];
        let runs = [runs.as_slice(), &[run("routes-5000", 20.0)]].concat();
        assert_eq!(noise(&runs), [("routes-0".to_owned(), 2.5), ("routes-5000".to_owned(), 0.0)]);
    }
}
