//! `status`: a table of what is served and what is not.

mod rows;
mod table;

use std::collections::BTreeMap;

use clap::Args;
use control_plane_files::{Inputs, ObjectId, Problem};
use serde_json::Value;

use crate::{
    arguments::Format,
    configuration::{Configuration, Place},
    output::{self, Failure, Verdict},
    source,
};
use rows::Row;

/// Show Gateways, listeners, routes and policies with their conditions
///
/// Shows Gateways, listeners, routes and policies with their conditions: of files, as `gateway --config` would have them; of a
/// cluster, from the statuses in what `kubectl get -o json` prints; of a running gateway, from its admin port.
///
/// An object in the input that has a status of its own is shown with that; every other with what these files would give.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 all is well, 1 something is refused or not ready, 2 it could not be looked at.\n\n\
    Examples:\n  nebulactl status -f config/\n  kubectl get gateways,httproutes,grpcroutes -A -o json | nebulactl status -f -\n  \
    nebulactl status --admin http://127.0.0.1:19000"
)]
pub struct Arguments {
    #[command(flatten)]
    place: Place,

    /// Only what is not well
    #[arg(long)]
    failed: bool,

    /// How the output looks
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    output: Format,
}

/// Looks, and prints the table.
///
/// # Errors: a path cannot be read, or the gateway does not answer.
pub fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let rows = match &arguments.place.admin {
        Some(admin) => rows::of_gateway(&Configuration::running(admin)?),
        None => of_files(&arguments.place)?,
    };
    let is_well = rows.iter().all(|row| row.is_well);
    let shown: Vec<Row> = rows.into_iter().filter(|row| !arguments.failed || !row.is_well).collect();
    match arguments.output {
        Format::Text => output::print(&table::text(&shown)),
        Format::Json => output::print(&format!("{}\n", serde_json::to_string_pretty(&shown)?)),
    }
    Ok(if is_well { Verdict::Fine } else { Verdict::Problems })
}

fn of_files(place: &Place) -> Result<Vec<Row>, Failure> {
    let mut inputs = Inputs::for_inspection();
    inputs.update(source::read(&place.paths)?);
    let mut statuses: BTreeMap<ObjectId, Value> = inputs
        .statuses()
        .map(|status| (ObjectId { kind: status.kind, name: status.name.clone() }, status.status.clone()))
        .collect();
    let recorded = inputs.documents().filter_map(|(id, document)| Some((id.clone(), rows::recorded(document)?)));
    let recorded: BTreeMap<ObjectId, Value> = recorded.collect();
    let is_shown = |problem: &Problem| {
        // What only these files would refuse says nothing about objects that come with a status.
        !recorded.keys().any(|id| problem.object.as_deref() == Some(id.to_string().as_str()))
    };
    let strangers: Vec<Row> =
        inputs.strangers().iter().filter(|problem| is_shown(problem)).map(Row::of_problem).collect();
    let broken = inputs.refusals().into_iter().filter(|problem| !has_status(problem, &statuses));
    let broken: Vec<Row> = broken.map(|problem| Row::of_problem(&problem)).collect();
    statuses.extend(recorded);
    let mut rows: Vec<Row> =
        statuses.iter().flat_map(|(id, status)| rows::of_status(&id.to_string(), status)).collect();
    rows.extend(strangers);
    rows.extend(broken);
    Ok(rows)
}

/// Whether the object of a problem has a row of its own.
fn has_status(problem: &Problem, statuses: &BTreeMap<ObjectId, Value>) -> bool {
    statuses.keys().any(|id| problem.object.as_deref() == Some(id.to_string().as_str()))
}
