//! `cargo xtask bench`: the product beside its peers, in one run on one machine.
//! Invariant: subjects take turns in every round, each turn checks its answers, and every process is stopped by its id.

mod gateway;
mod instructions;
mod load;
mod policies;
mod processes;
mod propagation;
mod report;
mod subjects;

use anyhow::Result;
use clap::Subcommand;

use crate::settings::Settings;

/// What can be measured.
#[derive(Subcommand)]
pub enum Command {
    /// Requests a second, CPU and latency beside nginx, HAProxy, Envoy and pingora-proxy.
    Gateway(gateway::Options),
    /// What each policy costs a request, beside the peers that have it.
    Policies(policies::Options),
    /// The time from a route's create to its first 200, in a cluster, with few and with many routes.
    Propagation(propagation::Options),
}

/// Measures, prints a table and writes JSON below `target/bench` of the checkout.
pub fn run(settings: &Settings, command: &Command) -> Result<()> {
    match command {
        Command::Gateway(options) => gateway::run(settings, options),
        Command::Policies(options) => policies::run(settings, options),
        Command::Propagation(options) => propagation::run(settings, options),
    }
}
