//! `cargo xtask bench gateway`: the gateway with routing, metrics and access log on, beside four plain proxies.

use std::path::PathBuf;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::{Result, bail};
use clap::Args;

use super::load::{self, Case, Counted, Target};
use super::processes::{Placement, Running};
use super::report::{self, Turn, float};
use super::subjects::{self, Ports, Programs, Subject, Workspace};
use crate::clock::Stopwatch;
use crate::settings::Settings;
use crate::shell;

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Rounds; in each, every subject has one turn.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of a turn. One second of warm-up comes before it.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Cases to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "http1-1k,tls-1k,http2-1k")]
    cases: Vec<Case>,
    /// Subjects to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nebula,nginx,haproxy,envoy,pingora")]
    subjects: Vec<Subject>,
    /// Cargo profile of the gateway: `release`, or `bench-quick` which is faster to build.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Measure this program of the gateway, without compiling it.
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    binary: Option<PathBuf>,
    /// Give the subject the last CPU for itself; else the kernel places the processes.
    #[arg(long)]
    pinned: bool,
}

/// A started subject.
struct Seat {
    subject: Subject,
    /// The gateway's second process, whose distance from the first is the noise.
    again: bool,
    process: Running,
    ports: Ports,
}

/// Measures and reports.
///
/// # Errors: a subject cannot be built or started, or answered with an error (the report is written nevertheless).
pub fn run(settings: &Settings, options: &Options) -> Result<()> {
    let nebula = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None if options.subjects.contains(&Subject::Nebula) => subjects::build_nebula(settings, &options.profile)?,
        None => PathBuf::new(),
    };
    let programs = Programs::get(settings, nebula, &options.subjects)?;
    let placement = placement(options.pinned)?;
    print_setting(options, &programs, &placement);
    let workspace = Workspace::new(settings)?;
    let (mut turns, mut again) = (Vec::new(), Vec::new());
    for case in &options.cases {
        // Readiness asks through to the upstream, so that this comes first.
        let mut upstream = workspace.start_upstream(&programs, &placement)?;
        if *case == Case::Http1 {
            let direct = load::run(*case, &target(&workspace, &placement, workspace.upstream()), options.seconds)?;
            println!("{}: client to upstream, no proxy: {:.0} req/s", case.name(), rate(&direct));
        }
        let mut seats = seats(&workspace, options, &programs, &placement)?;
        for round in 1..=options.rounds {
            for seat in &mut seats {
                let turn = turn(*case, round, seat, &workspace, &placement, options.seconds)?;
                upstream.check()?;
                if seat.again { &mut again } else { &mut turns }.push(turn);
            }
        }
    }
    let directory = settings.file("target/bench");
    report::write(&directory, "gateway.json", &turns)?;
    if !again.is_empty() {
        report::write(&directory, "gateway-noise.json", &again)?;
    }
    for case in &options.cases {
        report::print(*case, &options.subjects, &turns);
    }
    if !again.is_empty() {
        report::print_noise(&turns, &again);
    }
    let errors: u64 = turns.iter().chain(&again).map(|turn| turn.errors).sum();
    if errors > 0 {
        bail!("{errors} answers were errors");
    }
    Ok(())
}

/// Where it is wanted, the subject alone on the last CPU, client and upstream on the others.
pub fn placement(pinned: bool) -> Result<Placement> {
    let cpus = available_parallelism()?.get();
    if !pinned || cpus < 2 {
        return Ok(Placement { subject: None, load: None });
    }
    Ok(Placement { subject: Some((cpus - 1).to_string()), load: Some(format!("0-{}", cpus - 2)) })
}

fn print_setting(options: &Options, programs: &Programs, placement: &Placement) {
    let kernel = shell::output(Command::new("uname").arg("-r")).unwrap_or_default();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    println!(
        "machine: {} CPUs,{} Linux {}",
        available_parallelism().map_or(0, usize::from),
        cpu.trim_start_matches(['\t', ':']),
        kernel.trim()
    );
    match &placement.subject {
        Some(cpu) => println!("placement: subject on CPU {cpu}, client and upstream on the others"),
        None => println!("placement: the kernel's"),
    }
    println!("{} rounds of {} s; one worker each; upstream: nginx, fixed 1 KiB body", options.rounds, options.seconds);
    for subject in &options.subjects {
        let switched_on = match subject {
            Subject::Nebula => "routing, metrics, JSON access log (to /dev/null)",
            _ => "plain reverse proxy; no log, no metrics",
        };
        println!("- {}: {}; {switched_on}", subject.name(), programs.version(*subject));
    }
}

/// Starts every subject, and the gateway once more where there are several to compare.
fn seats(workspace: &Workspace, options: &Options, programs: &Programs, placement: &Placement) -> Result<Vec<Seat>> {
    let mut wanted: Vec<(Subject, bool)> = options.subjects.iter().map(|subject| (*subject, false)).collect();
    if options.subjects.contains(&Subject::Nebula) {
        wanted.push((Subject::Nebula, true));
    }
    let mut seats = Vec::new();
    for (slot, (subject, again)) in wanted.into_iter().enumerate() {
        let files = subject.extension().map(|extension| format!("gateway/{}.{extension}", subject.name()));
        let files: Vec<String> = files.into_iter().collect();
        let (process, ports) = workspace.start(subject, slot, &files, programs, placement)?;
        seats.push(Seat { subject, again, process, ports });
    }
    Ok(seats)
}

fn target<'a>(workspace: &'a Workspace, placement: &'a Placement, ports: Ports) -> Target<'a> {
    Target {
        plain: ports.plain,
        tls: ports.tls,
        cpus: placement.load.as_deref(),
        script: &workspace.script,
        directory: &workspace.directory,
        path: "/",
        headers: &[],
    }
}

/// Requests a second.
pub fn rate(counted: &Counted) -> f64 {
    float(counted.requests) / (float(counted.microseconds) / 1e6)
}

fn turn(
    case: Case,
    round: u32,
    seat: &mut Seat,
    workspace: &Workspace,
    placement: &Placement,
    seconds: u64,
) -> Result<Turn> {
    let target = target(workspace, placement, seat.ports);
    load::run(case, &target, 1)?;
    let (watch, before) = (Stopwatch::start(), seat.process.cpu_time()?);
    let counted = load::run(case, &target, seconds)?;
    let cpu = seat.process.cpu_time()?.saturating_sub(before);
    let rate = rate(&counted);
    seat.process.check()?;
    let turn = Turn {
        case,
        subject: seat.subject,
        round,
        requests_per_second: rate,
        cpu_us_per_request: cpu.as_secs_f64() * 1e6 / float(counted.requests),
        p50_us: counted.p50_us,
        p99_us: counted.p99_us,
        p999_us: counted.p999_us,
        rss_bytes: seat.process.resident_bytes()?,
        errors: counted.errors,
    };
    println!(
        "{} round {round}: {}{} {rate:.0} req/s, {:.1} µs CPU, p99 {} µs, {} errors ({watch})",
        case.name(),
        seat.subject.name(),
        if seat.again { " again" } else { "" },
        turn.cpu_us_per_request,
        turn.p99_us,
        turn.errors,
    );
    Ok(turn)
}
