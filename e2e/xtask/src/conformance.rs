//! `cargo xtask conformance`: the official Gateway API suite against the product in a cluster.
//! The counts of passed and failed are those of the test binary's own output, not of the report, which leaves out tests
//! that belong to no profile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::artifacts::Artifact;
use crate::clock::Stopwatch;
use crate::images::Profile;
use crate::install::{self, GATEWAY_CLASS};
use crate::settings::Settings;
use crate::shell;
use crate::target::{self, Choice, Kubernetes};

/// The profiles of the product.
const PROFILES: [&str; 2] = ["GATEWAY-HTTP", "GATEWAY-GRPC"];

/// Flags of `cargo xtask conformance`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// GATEWAY-HTTP, GATEWAY-GRPC, GATEWAY-TLS, … [default: the profiles the product claims].
    #[arg(long = "profile", value_name = "P")]
    profiles: Vec<String>,
    /// Run one test by its short name, whatever it needs; writes no report.
    #[arg(long, value_name = "NAME")]
    run_test: Option<String>,
    /// Features to test, separated by commas [default: those in the GatewayClass's status].
    #[arg(long, value_name = "FEATURES")]
    supported_features: Option<String>,
    /// Test what is installed, without compiling and installing first.
    #[arg(long)]
    no_install: bool,
    /// Compile for measuring rather than as the tests do.
    #[arg(long)]
    release: bool,
    #[command(flatten)]
    cluster: Choice,
}

/// What to run.
pub struct RunOptions {
    profiles: Vec<String>,
    run_test: Option<String>,
    supported_features: Option<String>,
}

impl RunOptions {
    /// The profiles that the product claims, with the features that it declares.
    pub fn of_the_product() -> Self {
        Self { profiles: PROFILES.map(str::to_owned).to_vec(), run_test: None, supported_features: None }
    }
}

/// How the run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Left out because the product does not declare a feature that they need.
    undeclared: usize,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Outcome {
    /// # Errors: something failed, or nothing ran.
    pub fn check(self) -> Result<()> {
        ensure!(self.failed == 0, "{} conformance tests failed", self.failed);
        ensure!(self.passed > 0, "no conformance test ran");
        Ok(())
    }
}

/// Carries out the command.
pub fn run(settings: &Settings, arguments: Arguments) -> Result<()> {
    let profile = if arguments.release { Profile::Measure } else { Profile::Dev };
    let mut options = RunOptions::of_the_product();
    if !arguments.profiles.is_empty() {
        options.profiles.clone_from(&arguments.profiles);
    }
    options.run_test.clone_from(&arguments.run_test);
    options.supported_features.clone_from(&arguments.supported_features);
    let reports = settings.file("e2e/conformance/reports");
    let outcome = target::with(settings, &arguments.cluster, |kubernetes| {
        if !arguments.no_install {
            install::install(settings, kubernetes, profile)?;
        }
        suite(settings, kubernetes, &options, &reports)
    })?;
    println!("{outcome}");
    outcome.check()
}

/// Runs the suite, shows its progress, writes the report into `reports` and prints its table.
pub fn suite(settings: &Settings, kubernetes: &Kubernetes, options: &RunOptions, reports: &Path) -> Result<Outcome> {
    let suite = Artifact::ConformanceSuite.get(settings)?;
    std::fs::create_dir_all(reports)?;
    let name = options.profiles.join("+").to_lowercase();
    let report = options.run_test.is_none().then(|| reports.join(format!("{name}.yaml")));
    let log = settings.target.join("xtask/conformance.log");
    let mut command = Command::new(suite);
    command.env("KUBECONFIG", kubernetes.kubeconfig());
    command.args(["-test.v", "-test.timeout=40m", "-test.run=^TestConformance$"]);
    command.arg(format!("--gateway-class={GATEWAY_CLASS}"));
    command.arg(format!("--conformance-profiles={}", options.profiles.join(",")));
    if let Some(features) = &options.supported_features {
        command.arg(format!("--supported-features={features}"));
    }
    if let Some(test) = &options.run_test {
        command.arg(format!("--run-test={test}"));
    }
    if let Some(cluster) = kubernetes.local() {
        // 192.0.2.0/24 is set apart for documentation (RFC 5737): no range of load balancers holds it.
        command.arg(format!("--usable-address={}", cluster.static_address()?)).arg("--unusable-address=192.0.2.1");
    }
    if let Some(report) = &report {
        let version = format!("--version={}", env!("CARGO_PKG_VERSION"));
        command.arg(format!("--report-output={}", report.display())).arg(version);
        command.args(["--organization=nebula", "--project=nebula", "--url=https://nebula.dev"]);
        command.arg("--contact=https://nebula.dev/support");
    }
    println!("running the conformance suite: {} (log: {})", options.profiles.join(", "), log.display());
    let watch = Stopwatch::start();
    let ended = shell::logged(&mut command, &log);
    let output = std::fs::read_to_string(&log)?;
    let mut outcome = count(&output);
    for name in failures(&output) {
        println!("failed: {name}");
    }
    if let Err(error) = ended
        && outcome.failed == 0
    {
        // The set-up failed, or the suite ended early: no test says so.
        println!("{error:#}");
        outcome.failed = 1;
    }
    if let Some(report) = report.filter(|report| report.exists()) {
        outcome.skipped = summarize(&report)?;
        println!("report: {}", report.display());
    }
    println!("conformance took {watch}; {} tests need features that are not declared", outcome.undeclared);
    Ok(outcome)
}

#[derive(Deserialize)]
struct Report {
    profiles: Vec<ProfileReport>,
}

#[derive(Deserialize)]
struct ProfileReport {
    name: String,
    core: Status,
    extended: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    result: String,
    statistics: Statistics,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statistics {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Prints the report's table and answers how many tests of the profiles were skipped on request.
fn summarize(report: &PathBuf) -> Result<usize> {
    let text = std::fs::read_to_string(report)?;
    let parsed: Report = serde_saphyr::from_str(&text).with_context(|| format!("read {}", report.display()))?;
    // The suite writes it for its owner alone.
    std::fs::set_permissions(report, std::fs::Permissions::from_mode(0o644))?;
    println!("{:<16} {:<9} {:<8} {:>6} {:>6} {:>7}", "profile", "level", "result", "passed", "failed", "skipped");
    let mut skipped = 0;
    for profile in &parsed.profiles {
        let levels = [("core", Some(&profile.core)), ("extended", profile.extended.as_ref())];
        for (level, status) in levels.into_iter().filter_map(|(level, status)| Some((level, status?))) {
            let Statistics { passed, failed, skipped: left_out } = status.statistics;
            println!("{:<16} {level:<9} {:<8} {passed:>6} {failed:>6} {left_out:>7}", profile.name, status.result);
            skipped += left_out;
        }
    }
    Ok(skipped)
}

/// Counts the tests of the suite, which are the first level below `TestConformance`.
fn count(output: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for (verdict, _) in verdicts(output) {
        match verdict {
            "PASS" => outcome.passed += 1,
            "FAIL" => outcome.failed += 1,
            _ => outcome.undeclared += 1,
        }
    }
    outcome
}

fn failures(output: &str) -> impl Iterator<Item = &str> {
    verdicts(output).filter(|(verdict, _)| *verdict == "FAIL").map(|(_, name)| name)
}

fn verdicts(output: &str) -> impl Iterator<Item = (&str, &str)> {
    output.lines().filter_map(|line| {
        let (verdict, rest) = line.strip_prefix("    --- ")?.split_once(": TestConformance/")?;
        let name = rest.split_whitespace().next()?;
        (!name.contains('/')).then_some((verdict, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suites_own_tests_are_counted() {
        let output = "=== RUN   TestConformance
--- FAIL: TestConformance (9.00s)
    --- PASS: TestConformance/HTTPRouteSimpleSameNamespace (1.00s)
        --- PASS: TestConformance/HTTPRouteSimpleSameNamespace/Simple (0.10s)
    --- FAIL: TestConformance/HTTPRouteWeight (2.00s)
        --- FAIL: TestConformance/HTTPRouteWeight/x (1.00s)
    --- SKIP: TestConformance/MeshBasic (0.00s)
";
        assert_eq!(count(output), Outcome { passed: 1, failed: 1, skipped: 0, undeclared: 1 });
        assert_eq!(failures(output).collect::<Vec<_>>(), ["HTTPRouteWeight"]);
        assert!(count(output).check().is_err());
    }

    #[test]
    fn a_run_without_tests_is_no_success() {
        assert!(Outcome::default().check().is_err());
    }
}
