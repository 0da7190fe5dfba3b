//! `cargo xtask check` and `cargo xtask test`: what has to hold before a change is merged.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::artifacts::Artifact;
use crate::conformance;
use crate::images::Profile;
use crate::settings::Settings;
use crate::steps::Steps;
use crate::target::{self, Choice, Kubernetes};
use crate::{architecture, dependencies, install, packages};

/// The cluster that `cargo xtask test` makes for itself.
const CLUSTER: &str = "test";

/// Flags of `cargo xtask test`.
#[derive(Args, Clone, Debug)]
pub struct TestArguments {
    /// Leave the cluster (named `test`) running at the end.
    #[arg(long)]
    keep: bool,
}

/// Format, lints, dependencies and unit tests.
pub fn check(settings: &Settings) -> Result<()> {
    let mut steps = Steps::new(settings);
    static_checks(settings, &mut steps);
    steps.tests(
        "unit tests",
        cargo(settings).args(["test", "--locked", "--workspace", "--lib", "--bins", "--no-fail-fast"]),
    );
    steps.finish()
}

/// Everything: the checks, all tests, and the product in a cluster of its own under the official suite and ours.
pub fn test(settings: &Settings, arguments: &TestArguments) -> Result<()> {
    let mut steps = Steps::new(settings);
    let installed = steps.step("packages", |_| {
        packages::install_missing()?;
        packages::install(packages::CLUSTER_TESTS).map(|()| String::new())
    });
    if !installed {
        return steps.finish();
    }
    let built = std::thread::scope(|scope| {
        // The Go programs of the cluster build beside Cargo: both have stretches that use one core.
        let background = scope.spawn(|| artifacts(settings));
        static_checks(settings, &mut steps);
        let compiled =
            steps.command("compile", cargo(settings).args(["build", "--locked", "--workspace", "--all-targets"]));
        if compiled {
            steps.tests("tests", cargo(settings).args(["test", "--locked", "--workspace", "--no-fail-fast"]));
        } else {
            steps.left_out("tests", "the workspace does not compile");
        }
        let programs = steps.step("go programs (background)", |_| match background.join() {
            Ok(result) => result.map(|()| String::new()),
            Err(_) => bail!("the builder panicked"),
        });
        compiled && programs
    });
    if built {
        in_cluster(settings, arguments, &mut steps);
    } else {
        steps.left_out("cluster", "what it needs was not built");
    }
    steps.finish()
}

fn static_checks(settings: &Settings, steps: &mut Steps) {
    steps.command("format", cargo(settings).args(["fmt", "--all", "--check", "--", "--color=never"]));
    steps.step("architecture", |_| architecture::check(settings));
    steps.step("dependencies", |_| dependencies::check(settings));
    steps.command(
        "lints",
        cargo(settings).args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    );
}

fn artifacts(settings: &Settings) -> Result<()> {
    for artifact in Artifact::FOR_TESTS {
        artifact.get(settings)?;
    }
    Ok(())
}

fn in_cluster(settings: &Settings, arguments: &TestArguments, steps: &mut Steps) {
    let choice = Choice::of_name(CLUSTER, arguments.keep);
    let mut ran = false;
    let lived = target::with(settings, &choice, |kubernetes| {
        ran = true;
        let installed = steps
            .step("install", |_| install::install(settings, kubernetes, Profile::Compiled).map(|()| String::new()));
        if installed {
            steps.step("conformance", |_| {
                let reports = settings.target.join("xtask/reports");
                let outcome =
                    conformance::suite(settings, kubernetes, &conformance::RunOptions::of_the_product(), &reports)?;
                outcome.check().map(|()| outcome.to_string())
            });
            cluster_tests(settings, kubernetes, steps)?;
        } else {
            steps.left_out("conformance", "the product is not installed");
            steps.left_out("cluster tests", "the product is not installed");
        }
        Ok(())
    });
    if !ran || lived.is_err() {
        steps.step("cluster", |_| lived.map(|()| String::new()));
    }
}

fn cluster_tests(settings: &Settings, kubernetes: &Kubernetes, steps: &mut Steps) -> Result<()> {
    let mut command = cargo(settings);
    command.args(["test", "--locked", "--workspace", "--test", "cluster"]);
    command.env("NEBULA_E2E_CLUSTER", kubernetes.kubeconfig());
    command.env("NEBULA_E2E_HELM", Artifact::Helm.get(settings)?);
    let kubectl = kubernetes.kubectl(settings)?;
    command.env("NEBULA_E2E_KUBECTL", Path::new(kubectl.get_program()));
    steps.tests("cluster tests", &mut command);
    Ok(())
}

fn cargo(settings: &Settings) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(&settings.repository);
    command
}
