//! `explain`: what acts on the requests of a route, as the gateway has it.

mod policies;
mod route;
mod text;

use clap::Args;
use control_plane_files::Problem;
use serde_json::{Value, json};

use crate::{
    arguments::Format,
    configuration::{Configuration, Place},
    output::{self, Failure, Verdict},
};

/// Show what acts on a route: listeners, hosts, rules, policies, backends
///
/// Shows what a route comes to: the listeners and hosts that it is served at, and for each rule what it asks of a request,
/// the policies that act on it (merged, each field with the policy that it is from), what it changes, its limits, and where
/// the requests go.
///
/// The configuration is that of files, as `gateway --config` would serve them, or that of a running gateway.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 it is served, 1 it is not, or something about it is refused, 2 it could not be looked at.\n\n\
    Examples:\n  nebulactl explain shop/cart -f config/\n  nebulactl explain shop/cart --admin http://127.0.0.1:19000"
)]
pub struct Arguments {
    /// [http/|grpc/][NAMESPACE/]NAME; the namespace is default where there is none
    #[arg(value_name = "ROUTE")]
    route: String,

    #[command(flatten)]
    place: Place,

    /// How the output looks
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    output: Format,
}

/// Which routes are meant.
#[derive(Debug, PartialEq, Eq)]
struct Wanted<'a> {
    kind: Option<&'a str>,
    namespace: &'a str,
    name: &'a str,
}

/// What is known of one route.
struct Found<'a> {
    /// `http` or `grpc`.
    kind: &'static str,
    /// As `/explain` has it; `None` where it is not served.
    explanation: Option<Value>,
    problems: Vec<&'a Problem>,
}

/// Explains, and tells what is refused.
///
/// # Errors: the configuration cannot be had.
pub fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let wanted = Wanted::parse(&arguments.route);
    let configuration = Configuration::of(&arguments.place)?;
    let found = wanted.find(&configuration)?;
    if found.is_empty() {
        output::note(&format!("nebulactl: no route {} is here; there is {}", wanted.text(), routes(&configuration)));
        return Ok(Verdict::Problems);
    }
    let is_well = found.iter().all(|found| found.explanation.is_some() && found.problems.is_empty());
    match arguments.output {
        Format::Text => {
            let pages = found.iter().map(|found| wanted.page(found, &configuration));
            output::print(&pages.collect::<Vec<_>>().join("\n"));
        }
        Format::Json => {
            let objects = found.iter().map(|found| wanted.json(found)).collect::<Vec<_>>();
            output::print(&format!("{:#}\n", Value::Array(objects)));
        }
    }
    Ok(if is_well { Verdict::Fine } else { Verdict::Problems })
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Self {
        let text = text.strip_prefix("route/").unwrap_or(text);
        match text.split('/').collect::<Vec<_>>().as_slice() {
            [kind @ ("http" | "grpc"), namespace, name] => Self { kind: Some(kind), namespace, name },
            [namespace, name] => Self { kind: None, namespace, name },
            _ => Self { kind: None, namespace: "default", name: text },
        }
    }

    fn text(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn object(&self, kind: &str) -> String {
        let kind = if kind == "http" { "HTTPRoute" } else { "GRPCRoute" };
        format!("{kind} {}", self.text())
    }

    /// A route that is served, or of which something is said.
    fn find<'c>(&self, configuration: &'c Configuration) -> Result<Vec<Found<'c>>, Failure> {
        let mut all = Vec::new();
        for kind in ["http", "grpc"].into_iter().filter(|kind| self.kind.is_none_or(|wanted| wanted == *kind)) {
            let object = self.object(kind);
            let of_it = |problem: &&Problem| problem.object.as_deref() == Some(object.as_str());
            let problems: Vec<&Problem> = configuration.problems.iter().filter(of_it).collect();
            let key = format!("{kind}/{}", self.text());
            let is_served = configuration.objects.contains_key(&format!("route/{key}"));
            let explanation = if is_served { configuration.explain(&key)? } else { None };
            if explanation.is_some() || !problems.is_empty() {
                all.push(Found { kind, explanation, problems });
            }
        }
        Ok(all)
    }

    fn page(&self, found: &Found<'_>, configuration: &Configuration) -> String {
        let mut lines = vec![self.object(found.kind)];
        match &found.explanation {
            Some(explanation) => lines.extend(route::lines(explanation, &configuration.opened)),
            None => lines.push("  is not served".to_owned()),
        }
        if !found.problems.is_empty() {
            lines.push("\n  Refused".to_owned());
            lines.extend(found.problems.iter().map(|problem| format!("    {}", output::shown(&problem.to_string()))));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn json(&self, found: &Found<'_>) -> Value {
        let part = |name: &str| found.explanation.as_ref().and_then(|explanation| explanation.get(name).cloned());
        json!({
            "object": self.object(found.kind),
            "served": found.explanation.is_some(),
            "route": part("route"),
            "objects": part("objects"),
            "policies": part("policies"),
            "problems": found.problems,
        })
    }
}

/// What could have been meant.
fn routes(configuration: &Configuration) -> String {
    const SHOWN: usize = 10;
    let names: Vec<&str> = configuration.objects.keys().filter_map(|key| key.strip_prefix("route/")).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => {
            format!("{} and {} more", names.get(..SHOWN).unwrap_or_default().join(", "), count - SHOWN)
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_may_be_named_in_short_or_in_full() {
        let wanted = |kind, namespace, name| Wanted { kind, namespace, name };
        for (text, want) in [
            ("cart", wanted(None, "default", "cart")),
            ("shop/cart", wanted(None, "shop", "cart")),
            ("grpc/shop/cart", wanted(Some("grpc"), "shop", "cart")),
            ("route/http/shop/cart", wanted(Some("http"), "shop", "cart")),
            ("http/cart", wanted(None, "http", "cart")),
        ] {
            assert_eq!(Wanted::parse(text), want, "{text}");
        }
    }
}
