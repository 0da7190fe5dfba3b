//! Instructions a request, counted by Valgrind: they do not depend on what else the machine does.
//!
//! The gateway runs under Cachegrind, answers some requests and ends; twice, with different numbers of them, so that start and
//! end cancel out. Instructions of the kernel are not among them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::load::Target;
use super::processes::Running;
use super::report::float;
use super::subjects::wait_until_serving;
use crate::clock::wait_for;
use crate::{packages, shell};

/// Requests of the two runs.
const REQUESTS: [u64; 2] = [1000, 4000];

/// What a request costs, for a gateway that `start` makes under `valgrind` (a program and its first arguments).
pub fn per_request(
    directory: &Path,
    target: &Target<'_>,
    body: Option<&Path>,
    start: impl Fn(&Path, &[String]) -> Result<Running>,
) -> Result<f64> {
    packages::install(&[("/usr/bin/valgrind", "valgrind"), ("/usr/bin/h2load", "nghttp2-client")])?;
    let mut counted = [0, 0];
    for (requests, instructions) in REQUESTS.into_iter().zip(&mut counted) {
        let output = directory.join(format!("cachegrind-{requests}"));
        let arguments = ["--tool=cachegrind", "--cache-sim=no", "--quiet"].map(str::to_owned);
        let arguments = [arguments.as_slice(), &[format!("--cachegrind-out-file={}", output.display())]].concat();
        let mut running = start(Path::new("valgrind"), &arguments)?;
        wait_until_serving(&mut running, target.plain)?;
        ask(target, body, requests)?;
        running.terminate()?;
        wait_for("the end of the gateway", Duration::from_mins(1), || Ok(running.has_ended()? && output.exists()))?;
        *instructions = summary(&std::fs::read_to_string(&output).context("read Cachegrind's output")?)?;
    }
    let [few, many] = counted;
    ensure!(many > few, "{many} instructions for more requests, {few} for fewer");
    Ok(float(many - few) / float(REQUESTS[1] - REQUESTS[0]))
}

/// Sends so many requests over one connection; each must be answered with 200.
fn ask(target: &Target<'_>, body: Option<&Path>, requests: u64) -> Result<()> {
    let mut client = Command::new("h2load");
    client.args(["--h1", "-t1", "-c1", "-n", &requests.to_string()]);
    for header in target.headers {
        client.args(["--header", header]);
    }
    if let Some(body) = body {
        client.arg("--data").arg(body);
    }
    let printed = shell::output(client.arg(format!("http://127.0.0.1:{}{}", target.plain, target.path)))?;
    let wanted = format!("{requests} succeeded, 0 failed");
    if !printed.contains(&wanted) {
        bail!("want {wanted:?} of h2load:\n{printed}");
    }
    Ok(())
}

/// The total of Cachegrind's output file.
fn summary(text: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("summary:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("Cachegrind wrote no summary")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_the_total() {
        assert_eq!(summary("events: Ir\nfl=a\n1 5\nsummary: 123456 \n").unwrap(), 123_456);
        assert!(summary("events: Ir\n").is_err());
    }
}
