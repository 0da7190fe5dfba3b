//! Writes `crds/src/gateway_api/`: runs the installed kopium over the CRDs of a Gateway API release, then gives each
//! distinct type one name (`names.rs`) and one place (the kind's module, or `common` when several kinds share it).
//! Invariant: the same input and the same kopium give the same bytes. Nothing but this module writes those files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use crate::names::NAMES;

/// The Gateway API release that the types, and the chart `nebula-crds`, are made from.
pub const RELEASE: &str = "v1.6.3";

struct Definition {
    /// As Kubernetes spells it.
    name: &'static str,
    plural: &'static str,
    /// The storage version, so that watch caches need no conversion.
    version: &'static str,
    module: &'static str,
}

const DEFINITIONS: &[Definition] = &[
    Definition { name: "GatewayClass", plural: "gatewayclasses", version: "v1", module: "gateway_class" },
    Definition { name: "Gateway", plural: "gateways", version: "v1", module: "gateway" },
    Definition { name: "ListenerSet", plural: "listenersets", version: "v1", module: "listener_set" },
    Definition { name: "HTTPRoute", plural: "httproutes", version: "v1", module: "http_route" },
    Definition { name: "GRPCRoute", plural: "grpcroutes", version: "v1", module: "grpc_route" },
    Definition { name: "TLSRoute", plural: "tlsroutes", version: "v1", module: "tls_route" },
    Definition { name: "TCPRoute", plural: "tcproutes", version: "v1", module: "tcp_route" },
    Definition { name: "UDPRoute", plural: "udproutes", version: "v1", module: "udp_route" },
    Definition { name: "BackendTLSPolicy", plural: "backendtlspolicies", version: "v1", module: "backend_tls_policy" },
    Definition { name: "ReferenceGrant", plural: "referencegrants", version: "v1beta1", module: "reference_grant" },
];

/// What stands for kopium's enum of status codes, see [`is_status_code`].
const INTEGER: &str = "i64";

/// One `struct` or `enum` of kopium's output.
struct Type {
    module: &'static str,
    /// Documentation, attributes and body, as written.
    lines: Vec<String>,
    is_enum: bool,
}

/// Generates all kinds from `crds`, the folder with upstream's `gateway.networking.k8s.io_<plural>.yaml`, into `out`.
///
/// # Errors
/// kopium or rustfmt is missing or fails; a type has no name in `NAMES`, or one name stands for two different types.
pub fn generate(kopium: &Path, crds: &Path, out: &Path) -> anyhow::Result<()> {
    let mut types = BTreeMap::new();
    let mut order = Vec::new();
    for definition in DEFINITIONS {
        let source = run_kopium(kopium, crds, definition)?;
        parse(&source, definition, &mut types, &mut order)?;
    }
    let names = name_all(&types, &order)?;
    let mut modules: BTreeMap<&str, String> = BTreeMap::new();
    let mut users: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for old in &order {
        users.entry(lookup(&names, old)?).or_default().insert(lookup(&types, old)?.module);
    }
    let common: BTreeSet<&str> = users.iter().filter(|(_, of)| of.len() > 1).map(|(name, _)| *name).collect();
    let mut written = BTreeSet::from([INTEGER]);
    for old in &order {
        let new = lookup(&names, old)?.as_str();
        let item = lookup(&types, old)?;
        if !written.insert(new) {
            continue;
        }
        let module = if common.contains(new) { "common" } else { item.module };
        let text = modules.entry(module).or_default();
        for line in &item.lines {
            writeln!(text, "{}", rename(line, &names))?;
        }
        text.push('\n');
    }
    for (module, text) in &modules {
        write_module(&out.join(format!("{module}.rs")), text, if *module == "common" { None } else { Some(&common) })?;
    }
    Ok(())
}

fn run_kopium(kopium: &Path, crds: &Path, definition: &Definition) -> anyhow::Result<String> {
    let file = crds.join(format!("gateway.networking.k8s.io_{}.yaml", definition.plural));
    let output = Command::new(kopium)
        .arg("--filename")
        .arg(&file)
        .args(["--api-version", definition.version, "--schema=disabled", "--docs", "--hide-prelude"])
        .args(["--derive=Default", "--derive=PartialEq", "--derive=@enum:simple=Copy", "--derive=@enum:simple=Eq"])
        .args(["--derive=@enum:simple=Hash", "--smart-derive-elision"])
        .output()
        .with_context(|| format!("run {} (install it with `cargo install kopium`)", kopium.display()))?;
    ensure!(output.status.success(), "kopium {}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("kopium's output")
}

fn parse(
    source: &str,
    definition: &Definition,
    types: &mut BTreeMap<String, Type>,
    order: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut lines: Vec<String> = Vec::new();
    let mut name = None;
    for line in source.lines().map(str::trim_end) {
        let starts = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
        if let Some(rest) = starts {
            name = rest.split_whitespace().next().map(str::to_owned);
        }
        if line.is_empty() || line.starts_with("// ") || line.starts_with("use ") {
            continue;
        }
        // kopium names the root by its own case rule; ours is the kind itself.
        if line.starts_with("#[kube(group") {
            lines.push(format!(
                r#"#[kube(group = "gateway.networking.k8s.io", version = "{}", kind = "{}", plural = "{}")]"#,
                definition.version, definition.name, definition.plural
            ));
            lines.push(r#"#[kube(crates(kube_core = "::kube_core"))]"#.to_owned());
            continue;
        }
        lines.push(line.to_owned());
        if line == "}" || line.ends_with("{}") && starts.is_some() {
            let name = name.take().context("a body without a head")?;
            let is_enum = lines.iter().any(|line| line.starts_with("pub enum"));
            let item = Type { module: definition.module, lines: std::mem::take(&mut lines), is_enum };
            ensure!(types.insert(name.clone(), item).is_none(), "kopium wrote {name} twice");
            order.push(name);
        }
    }
    ensure!(lines.is_empty(), "{}: text after the last type: {lines:?}", definition.name);
    Ok(())
}

/// Old name to new name, for every type.
fn name_all(types: &BTreeMap<String, Type>, order: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    let mut by_shape: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (old, new) in NAMES {
        ensure!(types.contains_key(*old), "names.rs has {old}, which kopium no longer writes");
        by_shape.entry(shape(types, old)).or_default().insert(*new);
        names.insert((*old).to_owned(), (*new).to_owned());
    }
    for old in order {
        if names.contains_key(old) {
            continue;
        }
        if is_status_code(types, old) {
            names.insert(old.clone(), INTEGER.to_owned());
            continue;
        }
        if let Some(definition) =
            DEFINITIONS.iter().find(|definition| old.eq_ignore_ascii_case(&format!("{}Spec", definition.name)))
        {
            names.insert(old.clone(), format!("{}Spec", definition.name));
            continue;
        }
        let candidates: Vec<&str> = by_shape.get(&shape(types, old)).into_iter().flatten().copied().collect();
        match candidates.as_slice() {
            [one] => names.insert(old.clone(), (*one).to_owned()),
            [] => bail!("{old} needs a name in names.rs: no named type has the same fields"),
            several => bail!("{old} needs a line in names.rs: {several:?} have the same fields"),
        };
    }
    let mut shapes: BTreeMap<&str, String> = BTreeMap::new();
    for (old, new) in &names {
        let this = shape(types, old);
        if new != INTEGER && *shapes.entry(new).or_insert_with(|| this.clone()) != this {
            bail!("names.rs calls two different types {new}; one is {old}");
        }
    }
    Ok(names)
}

/// kopium makes an enum of strings from an integer with `enum: [301, ...]`, which reads no integer: keep the integer.
fn is_status_code(types: &BTreeMap<String, Type>, name: &str) -> bool {
    types.get(name).is_some_and(|item| item.is_enum && item.lines.iter().any(|line| line.trim().starts_with("r#_")))
}

/// The fields with their types spelled out, without documentation: equal for types that read the same JSON.
fn shape(types: &BTreeMap<String, Type>, name: &str) -> String {
    let Some(item) = types.get(name) else { return name.to_owned() };
    let mut out = String::from(if item.is_enum { "enum{" } else { "struct{" });
    for line in item.lines.iter().map(|line| line.trim()) {
        if line.starts_with("///") || line.starts_with("#[derive") || line.starts_with("#[kube") {
            continue;
        }
        if line.starts_with("pub struct") || line.starts_with("pub enum") {
            continue;
        }
        for word in words(line) {
            out.push_str(&if types.contains_key(word) { shape(types, word) } else { word.to_owned() });
        }
    }
    out
}

fn rename(line: &str, names: &BTreeMap<String, String>) -> String {
    if line.trim_start().starts_with("///") {
        return line.to_owned();
    }
    words(line).map(|word| names.get(word).map_or(word, String::as_str)).collect()
}

/// Splits into runs of identifier characters and single other characters; joined again they give `line`.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (word, tail) = rest.split_at(end);
        rest = tail;
        Some(word)
    })
}

fn write_module(path: &Path, body: &str, common: Option<&BTreeSet<&str>>) -> anyhow::Result<()> {
    let mut text = format!(
        "//! Generated by `crds/generate.sh` with kopium from Gateway API {RELEASE}, experimental channel. Do not edit.\n\n"
    );
    let uses = |word: &str| body.lines().any(|l| !l.trim_start().starts_with("///") && words(l).any(|w| w == word));
    if uses("BTreeMap") {
        text.push_str("use std::collections::BTreeMap;\n\n");
    }
    if uses("Condition") {
        text.push_str("use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;\n");
    }
    if uses("CustomResource") {
        text.push_str("use kube_derive::CustomResource;\n");
    }
    text.push_str("use serde::{Deserialize, Serialize};\n\n");
    let shared: Vec<&str> = common.into_iter().flatten().copied().filter(|name| uses(name)).collect();
    if !shared.is_empty() {
        writeln!(text, "use super::common::{{{}}};\n", shared.join(", "))?;
    }
    text.push_str(body);
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    let status = Command::new("rustfmt").args(["--edition", "2024"]).arg(path).status().context("run rustfmt")?;
    ensure!(status.success(), "rustfmt {}", path.display());
    Ok(())
}

fn lookup<'a, T>(map: &'a BTreeMap<String, T>, name: &str) -> anyhow::Result<&'a T> {
    map.get(name).with_context(|| format!("{name} is not known"))
}
