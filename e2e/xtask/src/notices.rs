//! The notices that an image carries below `/licenses`: ours, those of every crate that is linked in, those of Rust's
//! standard library, and those of the libraries beside the binary. Taken from what the packages themselves ship.
//! Invariant: a component without any licence text fails the build of the image.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::libraries::{Library, Package};
use crate::settings::Settings;
use crate::shell;

/// A text file of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Below the root of the image.
    pub path: PathBuf,
    pub text: String,
}

/// All notices for the image of `package`, whose binary was linked against `libraries`.
pub fn of(settings: &Settings, package: &str, libraries: &[Library]) -> Result<Vec<Notice>> {
    let mut notices = vec![
        notice("LICENSE", read(&settings.file("LICENSE"))?),
        notice("THIRD-PARTY.txt", crates(settings, package)?),
        notice("rust-standard-library.html", standard_library(settings)?),
    ];
    let packages: BTreeSet<Package> = libraries.iter().map(|library| library.package).collect();
    notices.push(notice("LIBRARIES.txt", library_list(&packages, libraries)?));
    let common: BTreeSet<&str> = packages.iter().flat_map(|package| package.common_licences()).copied().collect();
    for package in packages {
        let copyright = Path::new("/usr/share/doc").join(package.name()).join("copyright");
        notices.push(notice(&format!("{}.copyright", package.name()), read(&copyright)?));
    }
    for licence in common {
        notices.push(notice(licence, read(&Path::new("/usr/share/common-licenses").join(licence))?));
    }
    Ok(notices)
}

fn notice(name: &str, text: String) -> Notice {
    Notice { path: Path::new("/licenses").join(name), text }
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Which libraries lie in the image, and the source packages that they were built from: what the LGPL asks for.
fn library_list(packages: &BTreeSet<Package>, libraries: &[Library]) -> Result<String> {
    let mut text =
        "Libraries of the system in this image, unmodified, linked dynamically and replaceable by other builds\n\
        of the same interface. Their source is that of the Debian source packages named here.\n\n"
            .to_owned();
    for package in packages {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat=${Version}, source package ${source:Package} ${source:Version}"]);
        let version = shell::output(query.arg(package.name()))?;
        writeln!(text, "{} {version} ({}.copyright)", package.name(), package.name())?;
        for library in libraries.iter().filter(|library| library.package == *package) {
            writeln!(text, "    {}", library.path.display())?;
        }
    }
    Ok(text)
}

fn standard_library(settings: &Settings) -> Result<String> {
    let mut rustc = Command::new("rustc");
    let root = shell::output(rustc.current_dir(&settings.repository).args(["--print", "sysroot"]))?;
    read(&Path::new(root.trim()).join("share/doc/rust/COPYRIGHT-library.html"))
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Crate {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    authors: Vec<String>,
    /// `None` for what belongs to the workspace.
    source: Option<String>,
    manifest_path: PathBuf,
}

impl Crate {
    fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

/// The crates that are linked into the binary of `package`, and each licence text once with the crates that it is for.
fn crates(settings: &Settings, package: &str) -> Result<String> {
    let linked = linked_into(settings, package)?;
    let apache = read(&settings.file("helm/nebula-crds/gateway-api/LICENSE"))?;
    let mut texts = BTreeMap::new();
    for linked in &linked {
        let mut own = Vec::new();
        licence_files(linked.manifest_path.parent().context("a manifest lies in a folder")?, &mut own)?;
        own.sort();
        let own = own.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
        let own = if own.is_empty() { vec![standard_text(linked, &apache)?] } else { own };
        for text in own {
            add(&mut texts, text, linked);
        }
    }
    Ok(render(package, &linked, &texts)?)
}

/// cargo-tree, as it resolves features for one binary; the metadata alone would name what no build links.
fn linked_into(settings: &Settings, package: &str) -> Result<Vec<Crate>> {
    let mut tree = cargo(settings, "tree");
    tree.args(["--package", package, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let tree = shell::output(&mut tree)?;
    let names: BTreeSet<String> = tree.lines().filter_map(title_of).collect();
    let metadata = shell::output(cargo(settings, "metadata").args(["--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("read cargo metadata")?;
    let mut linked: Vec<Crate> = metadata.packages;
    linked.retain(|package| package.source.is_some() && names.contains(&package.title()));
    linked.sort_by_key(Crate::title);
    Ok(linked)
}

fn cargo(settings: &Settings, command: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&settings.repository).args([command, "--locked"]);
    cargo
}

/// `name 1.2.3`, from cargo-tree's `name v1.2.3 (path or *)`.
fn title_of(line: &str) -> Option<String> {
    let (name, rest) = line.split_once(" v")?;
    Some(format!("{name} {}", rest.split_whitespace().next()?))
}

/// Every licence and notice of a crate, those of the code that it vendors included.
fn licence_files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            licence_files(&entry.path(), found)?;
        } else if is_licence(&entry.file_name().to_string_lossy()) {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn is_licence(file: &str) -> bool {
    let file = file.to_lowercase();
    let named = ["licence", "license", "copying", "copyright", "notice", "unlicense"]
        .iter()
        .any(|start| file.starts_with(start));
    let is_source = [".rs", ".c", ".h", ".go", ".py", ".toml", ".json"].iter().any(|end| file.ends_with(end));
    named && !is_source
}

/// For a crate that ships no text of its own: that of a licence it offers.
fn standard_text(of: &Crate, apache: &str) -> Result<String> {
    let offered = of.license.as_deref().unwrap_or_default();
    let offers =
        |licence: &str| !offered.contains(" AND ") && offered.split([' ', '/', '(', ')']).any(|word| word == licence);
    if offers("Apache-2.0") {
        Ok(apache.to_owned())
    } else if offers("MIT") {
        let authors = if of.authors.is_empty() { format!("The {} authors", of.name) } else { of.authors.join(", ") };
        Ok(format!("Copyright (c) {authors}\n\n{MIT}"))
    } else {
        bail!("{} ({offered}) ships no licence text", of.title())
    }
}

const MIT: &str = "\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the \"Software\"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
";

/// A text and whom it is for, by the text without its line breaks: many differ in nothing else.
type Texts = BTreeMap<String, (String, BTreeSet<String>)>;

fn add(texts: &mut Texts, text: String, of: &Crate) {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    texts.entry(words).or_insert_with(|| (text, BTreeSet::new())).1.insert(of.title());
}

fn render(package: &str, linked: &[Crate], texts: &Texts) -> Result<String, std::fmt::Error> {
    let rule = "=".repeat(100);
    let mut page = format!("Crates that are linked into {package}, unmodified: version, licence, source.\n\n");
    for linked in linked {
        let licence = linked.license.as_deref().unwrap_or("see the text");
        writeln!(page, "{}  {licence}  {}", linked.title(), linked.repository.as_deref().unwrap_or_default())?;
    }
    for (text, titles) in texts.values() {
        let titles = titles.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        writeln!(page, "\n{rule}\nFor {titles}\n\n{}", text.trim_end())?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, license: &str) -> Crate {
        Crate {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some(license.to_owned()),
            ..Crate::default()
        }
    }

    #[test]
    fn the_lines_of_cargo_tree_name_packages_and_repetitions_alike() {
        for line in ["memchr v2.8.0", "memchr v2.8.0 (*)", "memchr v2.8.0 (/somewhere)"] {
            assert_eq!(title_of(line).as_deref(), Some("memchr 2.8.0"));
        }
    }

    #[test]
    fn licences_and_notices_are_found_and_source_is_not() {
        for file in ["LICENSE", "LICENSE-MIT", "license.md", "COPYING", "NOTICE", "UNLICENSE", "LICENCE.txt"] {
            assert!(is_licence(file), "{file}");
        }
        for file in ["license.rs", "README.md", "notice.h", "Cargo.toml"] {
            assert!(!is_licence(file), "{file}");
        }
    }

    #[test]
    fn a_text_that_many_crates_ship_stands_once() {
        let mut texts = Texts::new();
        add(&mut texts, "be\nfree".to_owned(), &named("a", "MIT"));
        add(&mut texts, "be free\n".to_owned(), &named("b", "MIT"));
        let page = render("gateway", &[named("a", "MIT"), named("b", "MIT")], &texts).unwrap();
        assert!(page.contains("For a 1.0.0, b 1.0.0\n\nbe\nfree\n"), "{page}");
    }

    #[test]
    fn a_crate_without_a_text_is_given_that_of_a_licence_it_offers_or_fails() {
        assert_eq!(standard_text(&named("a", "MIT OR Apache-2.0"), "apache").unwrap(), "apache");
        assert!(standard_text(&named("a", "MIT"), "apache").unwrap().contains("The a authors"));
        assert!(standard_text(&named("a", "MPL-2.0"), "apache").is_err());
        assert!(standard_text(&named("a", "MIT AND MPL-2.0"), "apache").is_err());
    }
}
