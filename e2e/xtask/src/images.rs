//! Container images, built with `buildah` from a Dockerfile and a staged root file system, as a user would.
//! Nothing is pulled: every image starts `FROM scratch`. The store lives in the cache, apart from the machine's own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::artifacts::{self, Artifact};
use crate::notices::{self, Notice};
use crate::settings::Settings;
use crate::{libraries, packages, shell};

/// Flags of `cargo xtask images`.
#[derive(Args)]
pub struct Arguments {
    /// Which of them [default: all].
    #[arg(value_enum)]
    products: Vec<Product>,
    /// The images' tag [default: the appVersion of helm/nebula, which the chart asks for unless told otherwise].
    #[arg(long)]
    tag: Option<Tag>,
    /// Where the archives go, as NAME-TAG.tar [default: target/images of the checkout].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Builds the images that ship (release profile) and writes each as a docker-archive: the one form that `docker load`,
/// `podman load`, `ctr images import` and `skopeo copy` take together with the image's name.
pub fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    packages::install(packages::IMAGES)?;
    let products = if arguments.products.is_empty() { Product::ALL.as_slice() } else { &arguments.products };
    let tag = match &arguments.tag {
        Some(tag) => tag.clone(),
        None => chart_tag(settings)?,
    };
    let output = arguments.output.clone().unwrap_or_else(|| settings.file("target/images"));
    std::fs::create_dir_all(&output).with_context(|| format!("create {}", output.display()))?;
    let archives = build_products(settings, products, Profile::Release, std::slice::from_ref(&tag))?;
    for (product, archive) in products.iter().zip(archives) {
        let path = output.join(format!("{}-{tag}.tar", product.name()));
        std::fs::copy(&archive, &path).with_context(|| format!("write {}", path.display()))?;
        println!("{}: {}", product.image(&tag), path.display());
    }
    Ok(())
}

/// The tag of an image: up to 128 of `A-Z a-z 0-9 _ . -`, the first neither `.` nor `-` (OCI distribution spec).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

impl FromStr for Tag {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if text.is_empty() || text.len() > 128 || !text.bytes().all(allowed) || text.starts_with(['.', '-']) {
            bail!("{text:?} is not a tag");
        }
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a cluster of this machine gets: `dev`, which the tests ask for, and the chart's own tag, for who installs the
/// chart as the README says.
pub fn cluster_tags(settings: &Settings) -> Result<[Tag; 2]> {
    Ok([Tag("dev".to_owned()), chart_tag(settings)?])
}

/// The tag that the chart asks for unless told otherwise.
fn chart_tag(settings: &Settings) -> Result<Tag> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Chart {
        app_version: String,
    }
    let path = settings.file("helm/nebula/Chart.yaml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let chart: Chart = serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    chart.app_version.parse()
}

/// The product's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Product {
    /// `nebula/gateway`
    Gateway,
    /// `nebula/control-plane`
    ControlPlane,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Gateway, Self::ControlPlane];

    /// The name of its package, binary and folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::ControlPlane => "control-plane",
        }
    }

    /// The image's whole name, as the chart asks for it.
    fn image(self, tag: &Tag) -> String {
        format!("nebula/{}:{tag}", self.name())
    }
}

/// How the product's binaries are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// For working: the packages of the images alone.
    Dev,
    /// The binaries that `cargo build --workspace --all-targets` left: nothing is built twice.
    Compiled,
    /// For measuring (`bench-quick` of the workspace).
    Measure,
    /// What ships.
    Release,
}

/// Compiles the products and answers their image archives, in the given order; each image has all of `tags`.
pub fn build_products(
    settings: &Settings,
    products: &[Product],
    profile: Profile,
    tags: &[Tag],
) -> Result<Vec<PathBuf>> {
    let folder = match profile {
        Profile::Compiled => "debug",
        Profile::Dev => compile(settings, products, "dev").map(|()| "debug")?,
        Profile::Measure => compile(settings, products, "bench-quick").map(|()| "bench-quick")?,
        Profile::Release => compile(settings, products, "release").map(|()| "release")?,
    };
    let archive = |product: &Product| {
        let name = product.name();
        let binary = settings.target.join(folder).join(name);
        archive_of_binary(settings, *product, &binary, tags).with_context(|| format!("build the image of {name}"))
    };
    products.iter().map(archive).collect()
}

fn compile(settings: &Settings, products: &[Product], profile: &str) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&settings.repository).args(["build", "--profile", profile]);
    for product in products {
        cargo.args(["--package", product.name(), "--bin", product.name()]);
    }
    println!("compiling {}", products.iter().map(|product| product.name()).collect::<Vec<_>>().join(", "));
    shell::logged(&mut cargo, &settings.target.join("xtask/logs/compile-images.log"))
}

/// The images that the cluster itself and the conformance suite run, as one archive each.
pub fn build_support(settings: &Settings) -> Result<Vec<PathBuf>> {
    let static_image = |artifact: Artifact, path: &str, tags: &[&str]| -> Result<PathBuf> {
        let program = artifact.get(settings)?;
        let mut hash = Sha256::new();
        hash.update(program.as_os_str().as_encoded_bytes());
        hash.update(format!("{path} {tags:?}"));
        build(
            settings,
            &Recipe {
                name: path.trim_start_matches('/').to_owned(),
                key: artifacts::short(hash),
                dockerfile: format!("FROM scratch\nCOPY rootfs/ /\nENTRYPOINT [\"{path}\"]\n"),
                files: vec![(program, PathBuf::from(path))],
                notices: Vec::new(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            },
        )
    };
    Ok(vec![
        static_image(Artifact::Pause, "/pause", &[PAUSE_IMAGE])?,
        static_image(Artifact::CoreDns, "/coredns", &[COREDNS_IMAGE])?,
        static_image(Artifact::EchoBasic, "/echo-basic", ECHO_IMAGES)?,
    ])
}

/// The image of pod sandboxes.
pub const PAUSE_IMAGE: &str = "localhost/pause:1";
/// The name by which the conformance suite asks for a name server, used by the cluster as well.
pub const COREDNS_IMAGE: &str = "registry.k8s.io/coredns/coredns:v1.12.2";
/// The names by which the conformance suite (v1.6.3) asks for its backend.
pub const ECHO_IMAGES: &[&str] = &[
    "registry.k8s.io/gateway-api/echo-basic:v1.5.1",
    "registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.2",
    "registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.3",
];

struct Recipe {
    name: String,
    /// Names the content; an archive with the same key is used again.
    key: String,
    dockerfile: String,
    /// From this machine, to an absolute path in the image.
    files: Vec<(PathBuf, PathBuf)>,
    notices: Vec<Notice>,
    tags: Vec<String>,
}

/// A dynamically linked program travels with the libraries and the loader it was linked against, and with the notices of
/// all that is in the image.
fn archive_of_binary(settings: &Settings, product: Product, binary: &Path, tags: &[Tag]) -> Result<PathBuf> {
    let name = product.name();
    let dockerfile_path = settings.file(name).join("Dockerfile");
    let dockerfile =
        std::fs::read_to_string(&dockerfile_path).with_context(|| format!("read {}", dockerfile_path.display()))?;
    // Line tables of every dependency triple the image; the copy that ships to the cluster does without.
    let stripped = settings.target.join("xtask").join(format!("{name}.stripped"));
    std::fs::create_dir_all(settings.target.join("xtask"))?;
    shell::run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(binary))?;
    let libraries = libraries::of(binary)?;
    let notices = notices::of(settings, name, &libraries)?;
    let tags: Vec<String> = tags.iter().map(|tag| product.image(tag)).collect();
    let mut hash = Sha256::new();
    hash.update(std::fs::read(&stripped)?);
    hash.update(&dockerfile);
    hash.update(format!("{tags:?} {notices:?}"));
    let mut files = vec![(stripped, Path::new("/usr/local/bin").join(name))];
    files.extend(libraries.into_iter().map(|library| (library.path.clone(), library.path)));
    build(settings, &Recipe { name: name.to_owned(), key: artifacts::short(hash), dockerfile, files, notices, tags })
}

fn build(settings: &Settings, recipe: &Recipe) -> Result<PathBuf> {
    let directory = settings.cache.join("images");
    std::fs::create_dir_all(&directory)?;
    let archive = directory.join(format!("{}-{}.tar", recipe.name, recipe.key));
    let lock = File::create(directory.join(format!("{}.lock", recipe.name)))?;
    lock.lock()?;
    if archive.exists() {
        return Ok(archive);
    }
    let context = directory.join(format!("{}.context", recipe.name));
    if context.exists() {
        std::fs::remove_dir_all(&context)?;
    }
    let root = context.join("rootfs");
    for (source, destination) in &recipe.files {
        std::fs::copy(source, place(&root, destination)?).with_context(|| format!("copy {}", source.display()))?;
    }
    for notice in &recipe.notices {
        std::fs::write(place(&root, &notice.path)?, &notice.text)?;
    }
    std::fs::write(context.join("Dockerfile"), &recipe.dockerfile)?;
    // Without a name of its own: the archive would carry that too.
    let image = shell::output(
        buildah(settings).args(["build", "--isolation", "chroot", "--pull=never", "--quiet"]).arg(&context),
    )?;
    let image = image.trim();
    let partial = archive.with_extension("partial");
    let mut push = buildah(settings);
    push.args(["push", "--quiet", image]);
    // The archive carries the first name; the rest are given when it is imported.
    let first = recipe.tags.first().context("an image needs a name")?;
    push.arg(format!("docker-archive:{}:{first}", partial.display()));
    let _ = std::fs::remove_file(&partial);
    shell::run(&mut push)?;
    shell::run(buildah(settings).args(["rmi", "--force", image]))?;
    std::fs::remove_dir_all(&context)?;
    remove_older(&directory, &recipe.name, &archive)?;
    std::fs::write(archive.with_extension("tags"), recipe.tags.join("\n"))?;
    std::fs::rename(&partial, &archive)?;
    Ok(archive)
}

/// The absolute path of an image as a path below `root`, whose folder is made.
fn place(root: &Path, path: &Path) -> Result<PathBuf> {
    let target = root.join(path.strip_prefix("/")?);
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(target)
}

/// The names that an archive is to have in the cluster.
pub fn tags(archive: &Path) -> Result<Vec<String>> {
    match std::fs::read_to_string(archive.with_extension("tags")) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn remove_older(directory: &Path, name: &str, newest: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let same = stem.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(|key| key.len() == 16);
        if same && path != newest && path.extension().is_some_and(|extension| extension == "tar" || extension == "tags")
        {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn buildah(settings: &Settings) -> Command {
    let store = settings.cache.join("buildah");
    let mut command = Command::new("buildah");
    command.arg("--root").arg(store.join("root")).arg("--runroot").arg(store.join("run"));
    command.args(["--storage-driver", "vfs"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_one_that_registries_take() {
        for tag in ["dev", "0.1.0", "_x", "v1.2-rc.1"] {
            assert_eq!(tag.parse::<Tag>().unwrap().to_string(), tag);
        }
        for tag in ["", "-x", ".x", "a b", "a/b", "a:b", &"x".repeat(129)] {
            assert!(tag.parse::<Tag>().is_err(), "{tag}");
        }
    }
}
