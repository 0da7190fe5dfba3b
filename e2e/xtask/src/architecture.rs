//! The shape of the workspace, held by a check: who may depend on whom, what a package is called, and documents whose
//! links lead somewhere.
//! Invariant: a package that is not in the table fails the check, so that a new one's place is decided, not found.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::settings::Settings;
use crate::shell;

/// A package and the packages of the workspace that it may depend on (tests aside).
const MAY_DEPEND: &[(&str, &[&str])] = &[
    (
        "control-plane-cli",
        &["control-plane-dump", "control-plane-files", "control-plane-model", "control-plane-translate", "crds"],
    ),
    ("control-plane-dump", &["control-plane-model"]),
    ("control-plane-files", &["control-plane-model", "control-plane-translate"]),
    ("control-plane-model", &[]),
    ("control-plane-translate", &["control-plane-model", "crds", "policy-jose", "policy-rate-limit", "policy-schema"]),
    ("control-plane-wire", &["control-plane-model", "kit-process"]),
    ("control-plane", &["control-plane-model", "control-plane-translate", "control-plane-wire", "crds", "kit-process"]),
    ("crds", &[]),
    (
        "gateway-engine",
        &["control-plane-dump", "control-plane-model", "kit-process", "policy-balance", "policy-resilience"],
    ),
    (
        "gateway-filters",
        &["control-plane-model", "gateway-engine", "kit-process", "policy-jose", "policy-rate-limit", "policy-schema"],
    ),
    (
        "gateway",
        &[
            "control-plane-dump",
            "control-plane-files",
            "control-plane-model",
            "control-plane-wire",
            "gateway-engine",
            "gateway-filters",
            "kit-process",
        ],
    ),
    ("kit-process", &[]),
    ("kit-testing", &[]),
    ("policy-balance", &["control-plane-model"]),
    ("policy-resilience", &["control-plane-model"]),
    ("policy-rate-limit", &["control-plane-model"]),
    ("policy-jose", &[]),
    ("policy-oidc", &[]),
    ("policy-schema", &["control-plane-model"]),
    ("e2e-bench-propagation", &[]),
    ("e2e-tests", &[]),
    ("xtask", &[]),
];

/// A crate from outside, and the packages that alone may name it.
const ONLY_FOR: &[(&str, &[&str])] = &[
    // A Kubernetes client: standalone mode and the engine bring none.
    ("kube", &["control-plane", "e2e-bench-propagation"]),
    ("kube-client", &[]),
    ("kube-runtime", &[]),
    // The generators run by hand; what they write is checked in.
    ("tonic-prost-build", &["control-plane-wire"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for those that ship.
    kind: Option<String>,
}

/// # Errors: a rule is broken; the error lists every place.
pub fn check(settings: &Settings) -> Result<String> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&settings.repository).args(["metadata", "--no-deps", "--locked", "--format-version", "1"]);
    let metadata: Metadata = serde_json::from_str(&shell::output(&mut cargo)?)?;
    let mut problems = dependencies(&metadata.packages);
    problems.extend(names(&settings.repository, &metadata.packages));
    let documents = documents(settings)?;
    problems.extend(without_readme(&files(settings, "*")?, &documents));
    for document in &documents {
        problems.extend(dead_links(&settings.repository, document));
    }
    if problems.is_empty() {
        Ok(format!("{} packages, {} documents", metadata.packages.len(), documents.len()))
    } else {
        bail!("{}", problems.join("\n"))
    }
}

fn dependencies(packages: &[Package]) -> Vec<String> {
    let members: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut problems = Vec::new();
    for package in packages {
        let Some((_, allowed)) = MAY_DEPEND.iter().find(|(name, _)| *name == package.name) else {
            problems.push(format!("{}: not in the table of e2e/xtask/src/architecture.rs", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.is_none()) {
            let name = dependency.name.as_str();
            if members.contains(name) && !allowed.contains(&name) {
                problems.push(format!("{} may not depend on {name}", package.name));
            }
            let reserved = ONLY_FOR.iter().find(|(reserved, _)| *reserved == name);
            if reserved.is_some_and(|(_, users)| !users.contains(&package.name.as_str())) {
                problems.push(format!("{} may not name {name}", package.name));
            }
        }
    }
    problems
}

fn names(repository: &Path, packages: &[Package]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let folder = Path::new(&package.manifest_path).parent().and_then(|folder| folder.strip_prefix(repository).ok());
        let folder = folder.map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
        let expected = name_of(&folder);
        if package.name != expected {
            problems.push(format!("{folder}: is called {}, its place says {expected}", package.name));
        }
    }
    problems
}

/// A package is named after its folder, with the short forms of the areas that hold many.
fn name_of(folder: &str) -> String {
    let shortened =
        [("services/kit/", "kit/"), ("services/", "service/"), ("policies/", "policy/"), ("e2e/xtask", "xtask")]
            .into_iter()
            .find_map(|(long, short)| folder.strip_prefix(long).map(|rest| format!("{short}{rest}")));
    shortened.unwrap_or_else(|| folder.to_owned()).replace('/', "-")
}

fn documents(settings: &Settings) -> Result<Vec<String>> {
    files(settings, "*.md")
}

/// Files of the repository, also those that are not committed yet.
fn files(settings: &Settings, pattern: &str) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(&settings.repository).args(["ls-files", "--cached", "--others", "--exclude-standard", pattern]);
    Ok(shell::output(&mut git)?.lines().map(str::to_owned).collect())
}

/// Every top-level folder with content says in a README what it owns.
fn without_readme(files: &[String], documents: &[String]) -> Vec<String> {
    let folders: BTreeSet<&str> = files.iter().filter_map(|file| Some(file.split_once('/')?.0)).collect();
    let visible = folders.into_iter().filter(|folder| !folder.starts_with('.'));
    let silent = visible.filter(|folder| !documents.contains(&format!("{folder}/README.md")));
    silent.map(|folder| format!("{folder}: has no README.md")).collect()
}

fn dead_links(repository: &Path, document: &str) -> Vec<String> {
    let path = repository.join(document);
    // One that is deleted but not yet committed has no links.
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let folder = path.parent().unwrap_or(repository);
    let dead = links(&text).filter(|target| !folder.join(target).exists());
    dead.map(|target| format!("{document}: nothing is at {target}")).collect()
}

/// Targets of Markdown links into the repository, without their anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', ' ', '#']).next()?;
        (!target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency { name: (*name).to_owned(), kind: kind.map(str::to_owned) })
            .collect();
        Package { name: name.to_owned(), manifest_path: String::new(), dependencies }
    }

    #[test]
    fn an_edge_that_the_table_lacks_is_found_and_one_of_tests_is_not() {
        let packages = [
            package("gateway-engine", &[("crds", None), ("gateway-filters", Some("dev")), ("kube", None)]),
            package("gateway-filters", &[]),
            package("crds", &[]),
            package("unheard-of", &[]),
        ];
        assert_eq!(
            dependencies(&packages),
            [
                "gateway-engine may not depend on crds",
                "gateway-engine may not name kube",
                "unheard-of: not in the table of e2e/xtask/src/architecture.rs",
            ]
        );
    }

    #[test]
    fn a_package_is_named_after_its_folder() {
        for (folder, name) in [
            ("gateway", "gateway"),
            ("control-plane/wire", "control-plane-wire"),
            ("policies/balance", "policy-balance"),
            ("services/kit/process", "kit-process"),
            ("e2e/xtask", "xtask"),
            ("e2e/bench/propagation", "e2e-bench-propagation"),
        ] {
            assert_eq!(name_of(folder), name);
        }
    }

    #[test]
    fn a_folder_that_does_not_say_what_it_owns_is_found() {
        let files = [".ci/run", "Cargo.toml", "crds/README.md", "crds/src/lib.rs", "helm/nebula/README.md"];
        let files = files.map(str::to_owned);
        assert_eq!(without_readme(&files, &files), ["helm: has no README.md"]);
    }

    #[test]
    fn links_into_the_repository_are_found() {
        let text = "[a](b.md) and [c](../d#e), [f](https://g/h) ![i](j.svg \"k\") [l](#m)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "../d", "j.svg"]);
    }
}
