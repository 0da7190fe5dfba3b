//! The clients: wrk for HTTP/1.1, h2load for HTTP/2. Both are asked for what they counted, never trusted to have
//! succeeded: an answer that is not 200, or is shorter than the body, is an error.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::processes;
use crate::shell;

/// Bytes of the upstream's body.
pub const BODY: u64 = 1024;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// HTTP/1.1, kept connections.
    #[value(name = "http1-1k")]
    #[serde(rename = "http1-1k")]
    Http1,
    /// HTTP/1.1 over TLS 1.3, ECDSA P-256, kept connections.
    #[value(name = "tls-1k")]
    #[serde(rename = "tls-1k")]
    Tls,
    /// HTTP/2 over TLS 1.3.
    #[value(name = "http2-1k")]
    #[serde(rename = "http2-1k")]
    Http2,
}

impl Case {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1-1k",
            Self::Tls => "tls-1k",
            Self::Http2 => "http2-1k",
        }
    }

    /// The client's command line, for the report.
    pub fn client(self) -> &'static str {
        match self {
            Self::Http1 | Self::Tls => "wrk -t1 -c32",
            Self::Http2 => "h2load -t1 -c8 -m16",
        }
    }
}

/// What one turn of a client counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Counted {
    pub requests: u64,
    pub microseconds: u64,
    pub bytes: u64,
    pub errors: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
}

/// Where a client sends to, and from where.
pub struct Target<'a> {
    pub plain: u16,
    pub tls: u16,
    /// CPUs of the client.
    pub cpus: Option<&'a str>,
    /// `report.lua`.
    pub script: &'a Path,
    /// For files of the client.
    pub directory: &'a Path,
    /// What is asked for.
    pub path: &'a str,
    /// Fields of each request, `name: value`.
    pub headers: &'a [String],
}

/// Loads the target for some seconds.
pub fn run(case: Case, target: &Target<'_>, seconds: u64) -> Result<Counted> {
    let counted = match case {
        Case::Http1 => wrk(&format!("http://127.0.0.1:{}{}", target.plain, target.path), target, seconds),
        Case::Tls => wrk(&format!("https://localhost:{}{}", target.tls, target.path), target, seconds),
        Case::Http2 => h2load(target, seconds),
    }?;
    if counted.requests == 0 || counted.bytes / counted.requests < BODY {
        bail!("{}: {} requests brought {} bytes", case.name(), counted.requests, counted.bytes);
    }
    Ok(counted)
}

fn wrk(url: &str, target: &Target<'_>, seconds: u64) -> Result<Counted> {
    let mut command = processes::command(Path::new("wrk"), target.cpus);
    command.args(["-t1", "-c32", "--timeout", "5s", "-d", &format!("{seconds}s"), "-s"]).arg(target.script);
    for header in target.headers {
        command.args(["-H", header]);
    }
    command.arg(url);
    let printed = shell::output(&mut command)?;
    let line = printed.lines().rfind(|line| line.starts_with('{')).context("wrk printed no report")?;
    Ok(serde_json::from_str(line)?)
}

fn h2load(target: &Target<'_>, seconds: u64) -> Result<Counted> {
    let log: PathBuf = target.directory.join("h2load.log");
    // h2load appends.
    let _ = std::fs::remove_file(&log);
    let mut command = processes::command(Path::new("h2load"), target.cpus);
    command.args(["-t1", "-c8", "-m16", "-D", &seconds.to_string(), "--log-file"]).arg(&log);
    for header in target.headers {
        command.args(["--header", header]);
    }
    command.arg(format!("https://localhost:{}{}", target.tls, target.path));
    let printed = shell::output(&mut command)?;
    for wanted in ["Application protocol: h2\n", "TLS Protocol: TLSv1.3\n"] {
        if !printed.contains(wanted) {
            bail!("h2load did not print {wanted:?}:\n{printed}");
        }
    }
    let mut counted = h2load_summary(&printed).with_context(|| format!("unknown report of h2load:\n{printed}"))?;
    counted.microseconds = seconds * 1_000_000;
    let lines = std::fs::read_to_string(&log).context("read h2load's log")?;
    let mut times: Vec<u64> = lines.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    times.sort_unstable();
    counted.p50_us = percentile(&times, 500);
    counted.p99_us = percentile(&times, 990);
    counted.p999_us = percentile(&times, 999);
    Ok(counted)
}

/// The numbers of h2load's summary that stand before these words.
fn h2load_summary(printed: &str) -> Option<Counted> {
    let line = |start: &str| printed.lines().find_map(|line| line.strip_prefix(start));
    let number = |line: &str, unit: &str| -> Option<u64> {
        line.split(',').find_map(|part| part.trim().strip_suffix(unit)?.trim().parse().ok())
    };
    let (requests, codes, traffic) = (line("requests: ")?, line("status codes: ")?, line("traffic: ")?);
    let data = traffic.split(',').find(|part| part.trim_end().ends_with("data"))?;
    let bytes = data.split_once('(')?.1.split_once(')')?.0.parse().ok()?;
    // Whole answers alone: a status is counted with its head, and the last answers are cut off.
    let succeeded = number(requests, "succeeded")?;
    let other = number(codes, "3xx")? + number(codes, "4xx")? + number(codes, "5xx")?;
    // What fails for its status is counted as failed as well.
    let errors = number(requests, "failed")?.max(other);
    Some(Counted { requests: succeeded, bytes, errors, ..Counted::default() })
}

/// The value below which `per_mille` thousandths of the sorted values lie.
pub fn percentile(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_h2load_is_read_and_an_answer_that_is_not_2xx_is_an_error() {
        let printed = "finished in 1.00s, 4040.00 req/s, 4.30MB/s\n\
            requests: 4040 total, 4168 started, 4040 done, 4030 succeeded, 10 failed, 0 errored, 0 timeout\n\
            status codes: 4030 2xx, 4 3xx, 0 4xx, 6 5xx\n\
            traffic: 4.30MB (4509000) total, 35.91KB (36777) headers (space savings 93.05%), 3.95MB (4136960) data\n";
        let expected = Counted { requests: 4030, bytes: 4_136_960, errors: 10, ..Counted::default() };
        assert_eq!(h2load_summary(printed), Some(expected));
        assert_eq!(h2load_summary("usage: h2load"), None);
    }

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let values: Vec<u64> = (1..=1000).collect();
        assert_eq!((percentile(&values, 500), percentile(&values, 990), percentile(&values, 999)), (500, 990, 999));
        assert_eq!(percentile(&[7], 999), 7);
        assert_eq!(percentile(&[], 500), 0);
    }
}
