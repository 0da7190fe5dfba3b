//! `cargo xtask bench policies`: what each policy costs a request, beside the peers that have the same.
//!
//! Every subject runs without and with the policy, by turns in each round; the difference in the same round is the cost. The gateway
//! without it runs twice, whose distance is the noise. Beside CPU time the gateway's own instructions are counted.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::gateway::{placement, rate};
use super::instructions;
use super::load::{self, Target};
use super::processes::{Placement, Running};
use super::report::{self, float, median};
use super::subjects::{self, Ports, Programs, Subject, Workspace};
use crate::settings::Settings;

/// How to measure.
#[derive(Args)]
pub struct Options {
    /// Rounds; in each, every subject has a turn without and one with the policy.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of a turn. One second of warm-up comes before it.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Policies to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "rate-limit")]
    cases: Vec<Policy>,
    /// Cargo profile of the gateway: `release`, or `bench-quick` which is faster to build.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Measure this program of the gateway, without compiling it.
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    binary: Option<PathBuf>,
    /// Count no instructions.
    #[arg(long)]
    no_instructions: bool,
}

/// A policy, as its files in `e2e/bench/policies` are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Policy {
    /// A token bucket for each client's address.
    RateLimit,
}

impl Policy {
    fn name(self) -> &'static str {
        match self {
            Self::RateLimit => "rate-limit",
        }
    }

    /// The peers that have the same.
    fn peers(self) -> &'static [Subject] {
        match self {
            Self::RateLimit => &[Subject::Envoy, Subject::Nginx],
        }
    }

    /// Fields of each request.
    fn headers(self) -> Vec<String> {
        match self {
            Self::RateLimit => Vec::new(),
        }
    }
}

/// Which form of a subject has a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    Without,
    With,
    /// Without once more: its distance from the first is the noise.
    Again,
}

/// One turn.
#[derive(Clone, Debug, Serialize)]
struct Turn {
    case: Policy,
    subject: Subject,
    form: Form,
    round: u32,
    requests_per_second: f64,
    cpu_us_per_request: f64,
    p99_us: u64,
    errors: u64,
}

/// What a request costs the gateway in instructions.
#[derive(Clone, Debug, Serialize)]
struct Instructions {
    case: Policy,
    without: f64,
    with: f64,
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    turns: Vec<Turn>,
    instructions: Vec<Instructions>,
}

struct Seat {
    subject: Subject,
    form: Form,
    process: Running,
    ports: Ports,
}

/// Everything that a case runs with.
struct Bench<'a> {
    case: Policy,
    headers: Vec<String>,
    workspace: &'a Workspace,
    programs: &'a Programs,
    placement: &'a Placement,
    options: &'a Options,
}

/// Measures and reports.
///
/// # Errors: a subject cannot be built or started, or answered with an error (the report is written nevertheless).
pub fn run(settings: &Settings, options: &Options) -> Result<()> {
    let nebula = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => subjects::build_nebula(settings, &options.profile)?,
    };
    let mut wanted = vec![Subject::Nebula];
    wanted.extend(options.cases.iter().flat_map(|case| case.peers()));
    let programs = Programs::get(settings, nebula, &wanted)?;
    let placement = placement(false)?;
    let workspace = Workspace::new(settings)?;
    println!(
        "{} rounds of {} s; one worker each; upstream: nginx, fixed 1 KiB body; wrk -t1 -c32",
        options.rounds, options.seconds
    );
    println!("the gateway has routing, metrics and the JSON access log (to /dev/null) on, the peers have not");
    let mut report = Report { turns: Vec::new(), instructions: Vec::new() };
    for case in &options.cases {
        let bench = Bench {
            case: *case,
            headers: case.headers(),
            workspace: &workspace,
            programs: &programs,
            placement: &placement,
            options,
        };
        let mut upstream = workspace.start_upstream(&programs, &placement)?;
        bench.rounds(&mut upstream, &mut report.turns)?;
        if !options.no_instructions {
            report.instructions.push(bench.instructions()?);
        }
    }
    report::write(&settings.file("target/bench"), "policies.json", &report)?;
    for case in &options.cases {
        print(*case, &report);
    }
    let errors: u64 = report.turns.iter().map(|turn| turn.errors).sum();
    if errors > 0 {
        bail!("{errors} answers were errors");
    }
    Ok(())
}

impl Bench<'_> {
    fn rounds(&self, upstream: &mut Running, turns: &mut Vec<Turn>) -> Result<()> {
        let mut seats = Vec::new();
        for subject in [&[Subject::Nebula], self.case.peers()].concat() {
            let again = (subject == Subject::Nebula).then_some(Form::Again);
            for form in [Form::Without, Form::With].into_iter().chain(again) {
                let files = files(self.case, subject, form);
                let (process, ports) =
                    self.workspace.start(subject, seats.len(), &files, self.programs, self.placement)?;
                seats.push(Seat { subject, form, process, ports });
            }
        }
        for round in 1..=self.options.rounds {
            for seat in &mut seats {
                turns.push(self.turn(round, seat)?);
                upstream.check()?;
            }
        }
        Ok(())
    }

    fn turn(&self, round: u32, seat: &mut Seat) -> Result<Turn> {
        let target = self.target(seat.ports);
        load::run(load::Case::Http1, &target, 1)?;
        let before = seat.process.cpu_time()?;
        let counted = load::run(load::Case::Http1, &target, self.options.seconds)?;
        let cpu = seat.process.cpu_time()?.saturating_sub(before);
        seat.process.check()?;
        let turn = Turn {
            case: self.case,
            subject: seat.subject,
            form: seat.form,
            round,
            requests_per_second: rate(&counted),
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / float(counted.requests),
            p99_us: counted.p99_us,
            errors: counted.errors,
        };
        println!(
            "{} round {round}: {} {:?} {:.0} req/s, {:.2} µs CPU, {} errors",
            self.case.name(),
            seat.subject.name(),
            seat.form,
            turn.requests_per_second,
            turn.cpu_us_per_request,
            turn.errors
        );
        Ok(turn)
    }

    fn instructions(&self) -> Result<Instructions> {
        let count = |form: Form| {
            let files = files(self.case, Subject::Nebula, form);
            let ports = Workspace::free_ports()?;
            instructions::per_request(&self.workspace.directory, &self.target(ports), None, |program, arguments| {
                self.workspace.start_wrapped(&files, ports, self.programs, program, arguments)
            })
        };
        let (without, with) = (count(Form::Without)?, count(Form::With)?);
        println!("{}: {without:.0} instructions a request without, {with:.0} with", self.case.name());
        Ok(Instructions { case: self.case, without, with })
    }

    fn target(&self, ports: Ports) -> Target<'_> {
        Target {
            plain: ports.plain,
            tls: ports.tls,
            cpus: self.placement.load.as_deref(),
            script: &self.workspace.script,
            directory: &self.workspace.directory,
            path: "/policy",
            headers: &self.headers,
        }
    }
}

fn files(case: Policy, subject: Subject, form: Form) -> Vec<String> {
    let (name, extension) = (subject.name(), subject.extension().unwrap_or_default());
    let base = format!("policies/{name}.{extension}");
    let with = format!("policies/{name}-{}.{extension}", case.name());
    match (subject, form) {
        (Subject::Nebula, Form::With) => vec![base, with],
        (_, Form::With) => vec![with],
        (_, Form::Without | Form::Again) => vec![base],
    }
}

/// Medians over the rounds: what each subject needs with the policy, and what the policy adds.
fn print(case: Policy, report: &Report) {
    println!("\n{}, medians:", case.name());
    println!("| subject | req/s without | with | CPU µs/req without | with | added µs | nebula's req/s to it, with |");
    println!("|---|---|---|---|---|---|---|");
    let of = |subject: Subject, form: Form| -> Vec<&Turn> {
        let is_meant = |turn: &&Turn| turn.case == case && turn.subject == subject && turn.form == form;
        report.turns.iter().filter(is_meant).collect()
    };
    let rate = |subject, form| median(of(subject, form).iter().map(|turn| turn.requests_per_second).collect());
    let cpu = |subject, form| median(of(subject, form).iter().map(|turn| turn.cpu_us_per_request).collect());
    let apart = |subject, one, other| {
        let pairs = of(subject, one).into_iter().zip(of(subject, other));
        median(pairs.map(|(one, other)| other.cpu_us_per_request - one.cpu_us_per_request).collect())
    };
    let nebula = rate(Subject::Nebula, Form::With);
    for subject in [&[Subject::Nebula], case.peers()].concat() {
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:+.2} | {:.2} |",
            subject.name(),
            rate(subject, Form::Without),
            rate(subject, Form::With),
            cpu(subject, Form::Without),
            cpu(subject, Form::With),
            apart(subject, Form::Without, Form::With),
            nebula / rate(subject, Form::With),
        );
    }
    println!(
        "noise: nebula without the policy against itself: {:+.2} µs",
        apart(Subject::Nebula, Form::Without, Form::Again)
    );
    for counted in report.instructions.iter().filter(|counted| counted.case == case) {
        println!(
            "instructions of nebula outside the kernel: {:.0} without, {:.0} with, {:+.0}",
            counted.without,
            counted.with,
            counted.with - counted.without
        );
    }
}
