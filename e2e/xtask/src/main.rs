//! The project's own commands: `cargo xtask cluster | images | conformance | bench | check | test`.
//! Owns no logic of the product; it starts the tools that build, run and judge it, and says what each step took.

mod architecture;
mod artifacts;
mod bench;
mod checks;
mod clock;
mod cluster;
mod conformance;
mod dependencies;
mod images;
mod install;
mod libraries;
mod notices;
mod packages;
mod settings;
mod shell;
mod steps;
mod target;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::settings::Settings;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, run and judge Nebula", max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    settings: settings::Places,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Side by side with the peers, in one run; prints the table and writes JSON to `target/bench`.
    #[command(subcommand)]
    Bench(bench::Command),
    /// A real Kubernetes on this machine.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Build the images that ship, as archives for a registry or another machine.
    Images(images::Arguments),
    /// The official Gateway API suite; ends with `N passed, N failed, N skipped`.
    Conformance(conformance::Arguments),
    /// The fast part: format, lints, dependencies, unit tests.
    Check,
    /// Everything, a cluster and the official suite included; installs what it needs.
    Test(checks::TestArguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let settings = Settings::new(arguments.settings)?;
    match arguments.command {
        Command::Bench(command) => bench::run(&settings, &command),
        Command::Cluster(command) => cluster::run(&settings, command),
        Command::Images(arguments) => images::run(&settings, &arguments),
        Command::Conformance(arguments) => conformance::run(&settings, arguments),
        Command::Check => checks::check(&settings),
        Command::Test(arguments) => checks::test(&settings, &arguments),
    }
}
