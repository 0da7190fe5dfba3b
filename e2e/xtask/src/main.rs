//! The project's own commands: `cargo xtask cluster | conformance | check | test`.
//! Owns no logic of the product; it starts the tools that build, run and judge it, and says what each step took.

mod artifacts;
mod clock;
mod cluster;
mod images;
mod packages;
mod settings;
mod shell;

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
    /// A real Kubernetes on this machine.
    #[command(subcommand)]
    Cluster(cluster::Command),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings::new(arguments.settings)?;
    match arguments.command {
        Command::Cluster(command) => cluster::run(&settings, command),
    }
}
