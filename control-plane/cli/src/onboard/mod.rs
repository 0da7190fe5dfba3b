//! `onboard`: from an OpenAPI document to the resources that bring its service behind a gateway, as YAML to review.
//!
//! Invariant: what is written is looked at by the same code as `validate` before anyone sees it.

mod document;
mod matches;
mod rate_limit;
mod route;
mod yaml;

use std::path::PathBuf;

use clap::Args;
use control_plane_files::Files;

use crate::{
    output::{self, Failure, Verdict},
    source, validate,
};
use document::Document;

/// Write the resources that bring a service behind a gateway, from its OpenAPI document
///
/// Reads an OpenAPI document (3.0 or 3.1, YAML or JSON) and writes the resources that lead its requests to a Service, with
/// comments that say what to look at, to standard output. Nothing is sent anywhere.
///
/// The route takes what the document describes: everything below the base path of its servers; where they have none, its paths.
/// Policies come with it in a form that refuses nothing yet (mode Report), so that they can be watched before they count.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 written, 1 what was written would be refused, 2 the document cannot be read.\n\n\
    Example:\n  nebulactl onboard --openapi cart.yaml --service cart --namespace shop --port 8080 \\\n    \
    --gateway infra/edge --hostname shop.example.com > cart-route.yaml")]
pub struct Arguments {
    /// The document; - for standard input
    #[arg(long, value_name = "FILE")]
    openapi: PathBuf,

    /// The Service that answers
    #[arg(long, value_name = "NAME", value_parser = label)]
    service: String,

    /// The Service's port (not the pods')
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// The namespace of the Service and of what is written
    #[arg(short = 'n', long, value_name = "NAMESPACE", default_value = "default", value_parser = label)]
    namespace: String,

    /// The name of what is written [default: the Service's]
    #[arg(long, value_name = "NAME", value_parser = label)]
    name: Option<String>,

    /// The Gateway that clients reach
    #[arg(long, value_name = "[NAMESPACE/]NAME", value_parser = gateway)]
    gateway: Option<Gateway>,

    /// A host that clients ask for, *.example.com for all below it; repeatable
    #[arg(long, value_name = "HOST", value_parser = host)]
    hostname: Vec<String>,
}

/// The Gateway that a route is to be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gateway {
    /// `None` for the route's own.
    namespace: Option<String>,
    name: String,
}

/// Writes the resources.
///
/// # Errors: the document cannot be read, or is no OpenAPI document.
pub fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let files = source::read(std::slice::from_ref(&arguments.openapi))?;
    let mut files = files.into_iter();
    let (Some((name, text)), None) = (files.next(), files.next()) else {
        return Err(format!("--openapi {}: want one file", arguments.openapi.display()).into());
    };
    let text = text.map_err(|error| format!("{}: {error}", name.display()))?;
    let document = Document::parse(&text).map_err(|error| error.of(&name))?;
    let written = arguments.write(&document, &name.display().to_string());
    output::print(&written);
    let errors = validate::errors(Files::from([("what was written".into(), Ok(written))]));
    for error in &errors {
        output::note(&format!("nebulactl: {}", output::shown(error)));
    }
    Ok(if errors.is_empty() { Verdict::Fine } else { Verdict::Problems })
}

impl Arguments {
    fn write(&self, document: &Document, file: &str) -> String {
        let resources = [route::write(self, document), rate_limit::write(self)];
        format!("{}{}", header(document, file), resources.join("---\n"))
    }

    /// The name of what is written.
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.service)
    }
}

fn header(document: &Document, file: &str) -> String {
    let title = document.title.as_ref().map(|title| format!(" ({})", yaml::comment(title))).unwrap_or_default();
    format!(
        "# Written by `nebulactl onboard` from {}{title}, which has {} paths.\n\
         # Review what is marked with LOOK; then `kubectl apply -f` it, or put it into the folder of a standalone gateway.\n",
        yaml::comment(file),
        document.paths.len(),
    )
}

/// A DNS label, as Kubernetes wants for the name of a Service.
fn label(text: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()];
    let is_label = ends.into_iter().all(|byte| byte.is_some_and(inner))
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
        && text.len() <= 63;
    let want = "want lower-case letters, digits and '-', a letter or digit at both ends, at most 63";
    if is_label { Ok(text.to_owned()) } else { Err(want.to_owned()) }
}

fn gateway(text: &str) -> Result<Gateway, String> {
    match text.split_once('/') {
        Some((namespace, name)) => Ok(Gateway { namespace: Some(label(namespace)?), name: label(name)? }),
        None => Ok(Gateway { namespace: None, name: label(text)? }),
    }
}

fn host(text: &str) -> Result<String, String> {
    match control_plane_model::HostPattern::parse(text) {
        Ok(control_plane_model::HostPattern::Any) => Err("want a host; leave the flag out for every host".to_owned()),
        Ok(pattern) => Ok(pattern.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kubernetes_refuses_are_refused_on_the_command_line() {
        for text in ["", "Cart", "-cart", "cart-", "a_b", "a.b", &"a".repeat(64)] {
            assert!(label(text).is_err(), "{text}");
        }
        assert_eq!(label("cart-2"), Ok("cart-2".to_owned()));
        let edge = Gateway { namespace: Some("infra".to_owned()), name: "edge".to_owned() };
        assert_eq!(gateway("infra/edge"), Ok(edge));
        assert!(gateway("infra/edge/x").is_err() && gateway("/edge").is_err());
        assert_eq!(host("Shop.example.com"), Ok("shop.example.com".to_owned()));
        assert!(host("").is_err() && host("shop example").is_err());
    }
}
