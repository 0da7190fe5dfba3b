//! The HTTPRoute.

use super::{
    Arguments,
    document::Document,
    matches::{self, Match, Origin},
    yaml::{comment, quoted},
};

/// Name of the route's rule, which policies may be attached to (`sectionName`).
pub const RULE: &str = "api";

/// The HTTPRoute as YAML.
pub fn write(arguments: &Arguments, document: &Document) -> String {
    let mut lines = vec![
        "apiVersion: gateway.networking.k8s.io/v1".to_owned(),
        "kind: HTTPRoute".to_owned(),
        "metadata:".to_owned(),
        format!("  name: {}", quoted(arguments.name())),
        format!("  namespace: {}", quoted(&arguments.namespace)),
        "spec:".to_owned(),
    ];
    lines.extend(parent(arguments));
    lines.extend(hostnames(arguments, document));
    lines.extend([
        "  rules:".to_owned(),
        "    # Policies may be attached to a rule by its name.".to_owned(),
        format!("    - name: {RULE}"),
        "      matches:".to_owned(),
    ]);
    lines.extend(paths(document));
    lines.extend(backend(arguments));
    lines.push(String::new());
    lines.join("\n")
}

fn parent(arguments: &Arguments) -> Vec<String> {
    let Some(gateway) = &arguments.gateway else {
        return vec![
            "  parentRefs:".to_owned(),
            "    # LOOK: name the Gateway that clients reach (--gateway), here one of this namespace.".to_owned(),
            "    - name: gateway".to_owned(),
        ];
    };
    let mut lines = vec![
        "  parentRefs:".to_owned(),
        "    # LOOK: add sectionName where only one of the Gateway's listeners is to serve this.".to_owned(),
        format!("    - name: {}", quoted(&gateway.name)),
    ];
    lines.extend(gateway.namespace.iter().map(|namespace| format!("      namespace: {}", quoted(namespace))));
    lines
}

fn hostnames(arguments: &Arguments, document: &Document) -> Vec<String> {
    if !arguments.hostname.is_empty() {
        let hosts = arguments.hostname.iter().map(|host| format!("    - {}", quoted(host)));
        return std::iter::once("  hostnames:".to_owned()).chain(hosts).collect();
    }
    let mut lines = vec!["  # LOOK: every host of the listeners; name those that this is for (--hostname).".to_owned()];
    if !document.hosts.is_empty() {
        let hosts: Vec<String> = document.hosts.iter().map(|host| comment(host)).collect();
        lines.push(format!("  # The document's servers are {}.", hosts.join(", ")));
    }
    lines
}

fn paths(document: &Document) -> Vec<String> {
    let (matches, origin) = matches::of(&document.bases, &document.paths);
    let reason = match origin {
        Origin::Bases => "# Everything below the base path of the document's servers.",
        Origin::Paths => "# The document's paths; those with parameters by what stands before the first one.",
        Origin::FirstSegments => {
            "# LOOK: the first segments of the document's paths, as these are many. Other services under them lose their requests."
        }
        Origin::Everything => "# LOOK: every path of the host, as the document's paths have nothing else in common.",
    };
    let mut lines = vec![format!("        {reason}")];
    for wanted in matches {
        let (kind, path) = match wanted {
            Match::Prefix(path) => ("PathPrefix", path),
            Match::Exact(path) => ("Exact", path),
        };
        lines.push("        - path:".to_owned());
        lines.push(format!("            type: {kind}"));
        lines.push(format!("            value: {}", quoted(&path)));
    }
    lines
}

fn backend(arguments: &Arguments) -> Vec<String> {
    let mut lines = vec!["      backendRefs:".to_owned()];
    if arguments.port.is_none() {
        lines.push("        # LOOK: the Service's port (--port), which need not be the pods'.".to_owned());
    }
    lines.push(format!("        - name: {}", quoted(&arguments.service)));
    lines.push(format!("          port: {}", arguments.port.unwrap_or(80)));
    lines
}
