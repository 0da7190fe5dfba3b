//! `validate`: everything that the control plane would refuse in a set of files, found by its own code.
//!
//! Files are seldom all that a cluster holds. So they are translated twice: alone, and with stand-ins for what they name
//! and do not hold. What only the first finds hangs on something that is elsewhere: a warning, unless the files are said to
//! be complete.

use std::collections::BTreeSet;

use clap::Args;
use control_plane_files::{Files, Inputs, Problem};
use control_plane_translate::Object;
use serde::Serialize;
use serde_json::json;

use crate::{
    arguments::Format,
    output::{self, Failure, Verdict},
    source::{self, Sources},
    stand_ins,
};

/// Tell everything that the control plane would refuse in a set of files, without a cluster
///
/// Files are read and translated by the control plane's own code; nothing is sent anywhere. Each problem is a line
/// `file:line:column: object: field: message` on standard output, a summary goes to standard error.
///
/// The files are taken for a part of what the cluster holds. What they name and do not hold (Gateways, Services, Secrets,
/// ReferenceGrants, GatewayClasses, GatewayConfigs, Namespaces) is assumed to exist and to fit, and is told as a warning, as
/// is an object that another controller may own. With --complete the files are all that there is, as they are for
/// `gateway --config`: what is missing is an error.
///
/// Objects of kinds that say nothing to a gateway, such as Deployments, are passed over.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 nothing is wrong (there may be warnings), 1 something is, 2 something could not be read.\n\n\
    Examples:\n  nebulactl validate -f route.yaml\n  nebulactl validate -f gateway/ -f shop/ --complete\n  \
    helm template shop | nebulactl validate -f -"
)]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,

    /// The files are all that there is: what they name and do not hold is an error
    #[arg(long)]
    complete: bool,

    /// How the output looks
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    output: Format,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
}

/// One line of the output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    severity: Severity,
    #[serde(flatten)]
    problem: Problem,
}

/// What was looked at and found.
struct Report {
    findings: Vec<Finding>,
    files: usize,
    objects: usize,
    foreign: usize,
}

/// Looks, and prints what it finds.
///
/// # Errors: a path cannot be read.
pub fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let files = source::read(&arguments.sources.paths)?;
    let unreadable = files.values().any(Result::is_err);
    let report = Report::of(files, arguments.complete);
    match arguments.output {
        Format::Text => {
            output::print(&report.text());
            output::note(&report.summary());
        }
        Format::Json => output::print(&report.json()),
    }
    Ok(match (unreadable, report.count(Severity::Error)) {
        (true, _) => Verdict::Unreadable,
        (false, 0) => Verdict::Fine,
        (false, _) => Verdict::Problems,
    })
}

/// The errors of `files`, taken for a part of what the cluster holds.
pub fn errors(files: Files) -> Vec<String> {
    let report = Report::of(files, false);
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(Finding::text).collect()
}

impl Report {
    fn of(files: Files, complete: bool) -> Self {
        let count = files.len();
        let mut inputs = Inputs::for_inspection();
        inputs.update(files);
        let findings = if complete { all_errors(&inputs) } else { split(&mut inputs) };
        Self { findings, files: count, objects: inputs.objects().count(), foreign: inputs.foreign() }
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    fn text(&self) -> String {
        self.findings.iter().flat_map(|finding| [output::shown(&finding.text()), "\n".to_owned()]).collect()
    }

    fn summary(&self) -> String {
        let foreign = match self.foreign {
            0 => String::new(),
            count => format!("; {count} of other kinds passed over"),
        };
        format!(
            "{} in {}: {}, {}{foreign}",
            counted(self.objects, "object"),
            counted(self.files, "file"),
            counted(self.count(Severity::Error), "error"),
            counted(self.count(Severity::Warning), "warning"),
        )
    }

    fn json(&self) -> String {
        let value = json!({
            "findings": self.findings,
            "summary": {
                "files": self.files,
                "objects": self.objects,
                "passedOver": self.foreign,
                "errors": self.count(Severity::Error),
                "warnings": self.count(Severity::Warning),
            },
        });
        format!("{value:#}\n")
    }
}

impl Finding {
    fn text(&self) -> String {
        let line = self.problem.to_string();
        if self.severity == Severity::Error {
            return line;
        }
        // As compilers write it: the word stands behind the place.
        let place = Problem { object: None, field: None, message: String::new(), ..self.problem.clone() }.to_string();
        let rest = line.strip_prefix(&place).unwrap_or(&line);
        format!("{place}warning: {rest}")
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn all_errors(inputs: &Inputs) -> Vec<Finding> {
    sorted(inputs.problems().into_iter().map(|problem| Finding { severity: Severity::Error, problem }))
}

/// Errors stay errors whatever else there is; the rest may be right in the cluster.
fn split(inputs: &mut Inputs) -> Vec<Finding> {
    let alone = inputs.problems();
    let objects: Vec<Object> = inputs.objects().cloned().collect();
    inputs.assume(stand_ins::of(&objects));
    let errors: BTreeSet<Problem> = inputs.refusals().into_iter().filter(|problem| problem.file.is_some()).collect();
    let strangers: BTreeSet<Problem> = inputs.strangers().into_iter().collect();
    let warnings = alone.into_iter().filter(|problem| !errors.contains(problem)).map(|mut problem| {
        if !strangers.contains(&problem) {
            problem.message.push_str(" (not in these files: assumed to be right)");
        }
        Finding { severity: Severity::Warning, problem }
    });
    let warnings: Vec<Finding> = warnings.collect();
    sorted(errors.into_iter().map(|problem| Finding { severity: Severity::Error, problem }).chain(warnings))
}

fn sorted(findings: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = findings.collect();
    findings.sort_by(|left, right| left.problem.cmp(&right.problem));
    findings
}
