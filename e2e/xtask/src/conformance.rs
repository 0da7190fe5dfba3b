//! `cargo xtask conformance`: the official Gateway API suite against the product in a cluster.
//! The counts of passed and failed are those of the test binary's own output, not of the report, which leaves out tests
//! that belong to no profile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
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

/// The profiles of the product, and how many core tests each of them has in the suite (v1.6.3): fewer mean that
/// something was not run.
const PROFILES: [(&str, usize); 2] = [("GATEWAY-HTTP", 36), ("GATEWAY-GRPC", 14)];

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
        Self { profiles: PROFILES.map(|(name, _)| name.to_owned()).to_vec(), run_test: None, supported_features: None }
    }
}

/// How the run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Left out because the product does not declare a feature that they need.
    undeclared: usize,
    /// What the core of the product's profiles lacks, in words; known where whole profiles were run.
    core_lacks: Vec<String>,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Outcome {
    /// # Errors: something failed, nothing ran, or a profile's core is not complete.
    pub fn check(&self) -> Result<()> {
        ensure!(self.failed == 0, "{} conformance tests failed", self.failed);
        ensure!(self.passed > 0, "no conformance test ran");
        ensure!(self.core_lacks.is_empty(), "{}", self.core_lacks.join("; "));
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
    if let Some(path) = report {
        let report = if path.exists() { read_report(&path)? } else { Report::default() };
        outcome.skipped = summarize(&report);
        outcome.core_lacks = core_lacks(&report, &options.profiles);
        println!("report: {}", path.display());
    }
    println!("conformance took {watch}; {} tests need features that are not declared", outcome.undeclared);
    Ok(outcome)
}

#[derive(Default, Deserialize)]
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

fn read_report(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path)?;
    // The suite writes it for its owner alone.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
    serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))
}

/// What is missing from the core of those `profiles` that the product claims, one sentence each.
fn core_lacks(report: &Report, profiles: &[String]) -> Vec<String> {
    let claimed = PROFILES.into_iter().filter(|(name, _)| profiles.iter().any(|profile| profile == name));
    let lacks = claimed.filter_map(|(name, wanted)| {
        let Some(profile) = report.profiles.iter().find(|profile| profile.name == name) else {
            return Some(format!("{name} is not in the report"));
        };
        let Status { result, statistics } = &profile.core;
        let complete = result == "success" && statistics.passed >= wanted;
        (!complete).then(|| format!("core of {name}: {result}, {} passed of at least {wanted}", statistics.passed))
    });
    lacks.collect()
}

/// Prints the report's table and answers how many tests of the profiles were skipped on request.
fn summarize(report: &Report) -> usize {
    println!("{:<16} {:<9} {:<8} {:>6} {:>6} {:>7}", "profile", "level", "result", "passed", "failed", "skipped");
    let mut skipped = 0;
    for profile in &report.profiles {
        let levels = [("core", Some(&profile.core)), ("extended", profile.extended.as_ref())];
        for (level, status) in levels.into_iter().filter_map(|(level, status)| Some((level, status?))) {
            let Statistics { passed, failed, skipped: left_out } = status.statistics;
            println!("{:<16} {level:<9} {:<8} {passed:>6} {failed:>6} {left_out:>7}", profile.name, status.result);
            skipped += left_out;
        }
    }
    skipped
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
        assert_eq!(count(output), Outcome { passed: 1, failed: 1, undeclared: 1, ..Outcome::default() });
        assert_eq!(failures(output).collect::<Vec<_>>(), ["HTTPRouteWeight"]);
        assert!(count(output).check().is_err());
    }

    #[test]
    fn a_run_without_tests_is_no_success() {
        assert!(Outcome::default().check().is_err());
    }

    fn report(name: &str, result: &str, passed: usize) -> Report {
        let statistics = Statistics { passed, failed: 0, skipped: 0 };
        let core = Status { result: result.to_owned(), statistics };
        Report { profiles: vec![ProfileReport { name: name.to_owned(), core, extended: None }] }
    }

    #[test]
    fn a_profile_is_complete_with_all_of_its_core_tests_and_success() {
        let http = ["GATEWAY-HTTP".to_owned()];
        assert!(core_lacks(&report("GATEWAY-HTTP", "success", 36), &http).is_empty());
        for (name, result, passed) in
            [("GATEWAY-HTTP", "success", 35), ("GATEWAY-HTTP", "partial", 36), ("GATEWAY-GRPC", "success", 14)]
        {
            assert_eq!(core_lacks(&report(name, result, passed), &http).len(), 1, "{name} {result} {passed}");
        }
        let outcome = Outcome { passed: 35, core_lacks: vec!["core".to_owned()], ..Outcome::default() };
        assert!(outcome.check().is_err());
    }

    #[test]
    fn a_run_of_both_profiles_without_a_report_lacks_both() {
        assert_eq!(core_lacks(&Report::default(), &RunOptions::of_the_product().profiles).len(), 2);
    }

    #[test]
    fn a_profile_that_the_product_does_not_claim_is_not_asked_for() {
        assert!(core_lacks(&Report::default(), &["GATEWAY-TLS".to_owned()]).is_empty());
    }
}
