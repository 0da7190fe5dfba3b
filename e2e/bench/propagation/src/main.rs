//! How long a route takes from its create (the API server's 201) to its first 200 at the gateway.
//! Run by `cargo xtask bench propagation`, which installs the product first; prints one JSON array.
//!
//! Invariant: one kept connection asks every millisecond; whatever is neither 404 nor 200, and each connection that
//! breaks, is an error and counted. All objects live in one namespace, which is deleted at the end.

mod backend;
mod cluster;
mod poller;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    cluster::{Cluster, Footprint, host},
    poller::Poller,
};

/// A route that is not served by then is a failure of the run.
const ROUTE_LIMIT: Duration = Duration::from_secs(30);
/// As [`ROUTE_LIMIT`], for thousands of routes created at once.
const FILL_LIMIT: Duration = Duration::from_mins(5);

/// Measures against the cluster of KUBECONFIG.
#[derive(Parser)]
struct Options {
    /// Samples of each run.
    #[arg(long, default_value_t = 500)]
    samples: usize,
    /// How many routes are there before the samples; one measurement for each number.
    #[arg(long, value_delimiter = ',', default_value = "0,5000")]
    routes: Vec<usize>,
    /// How many of the routes that are there have a RateLimitPolicy each; one more comes with the Gateway.
    #[arg(long, default_value_t = 0)]
    policies: usize,
    /// Runs of each measurement, one after the other without a change between them: their distance is the noise.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// The namespace, made and deleted by this program.
    #[arg(long, default_value = "bench-propagation")]
    namespace: String,
    /// The GatewayClass.
    #[arg(long, default_value = "nebula")]
    class: String,
}

/// One run of samples.
#[derive(Serialize)]
struct Run {
    case: String,
    subject: &'static str,
    round: u32,
    routes: usize,
    policies: usize,
    samples: usize,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    errors: u64,
    #[serde(flatten)]
    footprint: Footprint,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    // An error means that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cluster = Cluster::prepare(&options.namespace, &options.class).await?;
    let measured = measure(&cluster, &options).await;
    let removed = cluster.remove().await;
    println!("{}", serde_json::to_string_pretty(&measured?)?);
    removed
}

async fn measure(cluster: &Cluster, options: &Options) -> Result<Vec<Run>> {
    let mut poller = Poller::new(cluster.gateway_address().await?);
    cluster.create_route("probe").await?;
    let since = Instant::now();
    poller = served(poller, host("probe"), since, FILL_LIMIT).await?.0;
    poller.take_errors();
    if options.policies > 0 {
        cluster.create_gateway_policy().await?;
    }
    let mut runs = Vec::new();
    let mut filled = 0;
    for routes in &options.routes {
        if *routes > filled {
            poller = fill(cluster, poller, filled..*routes).await?;
            let with_policy = filled.min(options.policies)..(*routes).min(options.policies);
            cluster.create_route_policies(with_policy.map(fill_name)).await?;
            filled = *routes;
        }
        for round in 1..=options.rounds {
            let (back, mut run) = sample(cluster, poller, filled, round, options.samples).await?;
            if options.policies > 0 {
                run.policies = options.policies.min(filled) + 1;
                run.case = format!("{}-policies-{}", run.case, run.policies);
            }
            eprintln!(
                "{}, round {round}: p50 {:.1} ms, p99 {:.1} ms, {} errors",
                run.case, run.p50_ms, run.p99_ms, run.errors
            );
            poller = back;
            runs.push(run);
        }
    }
    Ok(runs)
}

fn fill_name(number: usize) -> String {
    format!("fill-{number}")
}

/// Creates routes as fast as the API server takes them, then asks each of them once.
async fn fill(cluster: &Cluster, mut poller: Poller, numbers: std::ops::Range<usize>) -> Result<Poller> {
    let watch = Instant::now();
    let names: Vec<String> = numbers.map(fill_name).collect();
    cluster.create_routes(&names).await?;
    let (created, since) = (watch.elapsed(), Instant::now());
    for name in &names {
        poller = served(poller, host(name), since, FILL_LIMIT).await?.0;
    }
    let errors = poller.take_errors();
    eprintln!(
        "{} routes created in {:.1} s, all served {:.1} s later, {errors} errors",
        names.len(),
        created.as_secs_f64(),
        since.elapsed().as_secs_f64()
    );
    ensure!(errors == 0, "{errors} errors while the routes were created");
    Ok(poller)
}

async fn sample(
    cluster: &Cluster,
    mut poller: Poller,
    routes: usize,
    round: u32,
    samples: usize,
) -> Result<(Poller, Run)> {
    let mut times = Vec::with_capacity(samples);
    for number in 0..samples {
        let name = format!("sample-{routes}-{round}-{number}");
        cluster.create_route(&name).await?;
        let since = Instant::now();
        let (back, took) = served(poller, host(&name), since, ROUTE_LIMIT).await?;
        poller = back;
        times.push(took.as_secs_f64() * 1000.0);
        cluster.delete_route(&name).await?;
    }
    times.sort_by(f64::total_cmp);
    let percentile = |per_mille: usize| {
        let rank = (times.len() * per_mille).div_ceil(1000).saturating_sub(1);
        times.get(rank).copied().unwrap_or_default()
    };
    let run = Run {
        case: format!("routes-{routes}"),
        subject: "nebula",
        round,
        routes,
        policies: 0,
        samples,
        p50_ms: percentile(500),
        p90_ms: percentile(900),
        p99_ms: percentile(990),
        max_ms: percentile(1000),
        errors: poller.take_errors(),
        footprint: cluster.footprint().await?,
    };
    Ok((poller, run))
}

/// Polls until `host` answers 200, on a thread that may block.
async fn served(mut poller: Poller, host: String, since: Instant, limit: Duration) -> Result<(Poller, Duration)> {
    let polled = tokio::task::spawn_blocking(move || {
        let took = poller.until_served(&host, since, limit);
        (poller, took)
    });
    let (poller, took) = polled.await.context("the polling thread panicked")?;
    Ok((poller, took?))
}
