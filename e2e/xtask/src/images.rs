//! Container images, built with `buildah` from a Dockerfile and a staged root file system, as a user would.
//! Nothing is pulled: every image starts `FROM scratch`. The store lives in the cache, apart from the machine's own.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;
use sha2::{Digest, Sha256};

use crate::artifacts::{self, Artifact};
use crate::settings::Settings;
use crate::shell;

/// The product's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Product {
    /// `nebula/gateway:dev`
    Gateway,
    /// `nebula/control-plane:dev`
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
}

/// Compiles the products and answers their image archives, in the given order.
pub fn build_products(settings: &Settings, products: &[Product], profile: Profile) -> Result<Vec<PathBuf>> {
    let folder = match profile {
        Profile::Compiled => "debug",
        Profile::Dev => compile(settings, products, "dev").map(|()| "debug")?,
        Profile::Measure => compile(settings, products, "bench-quick").map(|()| "bench-quick")?,
    };
    let archive = |product: &Product| {
        let name = product.name();
        let binary = settings.target.join(folder).join(name);
        archive_of_binary(settings, name, &binary).with_context(|| format!("build the image of {name}"))
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
    tags: Vec<String>,
}

/// A dynamically linked program travels with the libraries and the loader it was linked against.
fn archive_of_binary(settings: &Settings, name: &str, binary: &Path) -> Result<PathBuf> {
    let dockerfile_path = settings.file(name).join("Dockerfile");
    let dockerfile =
        std::fs::read_to_string(&dockerfile_path).with_context(|| format!("read {}", dockerfile_path.display()))?;
    // Line tables of every dependency triple the image; the copy that ships to the cluster does without.
    let stripped = settings.target.join("xtask").join(format!("{name}.stripped"));
    std::fs::create_dir_all(settings.target.join("xtask"))?;
    shell::run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(binary))?;
    let mut hash = Sha256::new();
    hash.update(std::fs::read(&stripped)?);
    hash.update(&dockerfile);
    let mut files = vec![(stripped, Path::new("/usr/local/bin").join(name))];
    files.extend(libraries(binary)?.into_iter().map(|library| (library.clone(), library)));
    let tags = vec![format!("nebula/{name}:dev")];
    build(settings, &Recipe { name: name.to_owned(), key: artifacts::short(hash), dockerfile, files, tags })
}

/// Absolute paths of the shared libraries and the loader, as `ldd` finds them.
fn libraries(binary: &Path) -> Result<BTreeSet<PathBuf>> {
    let listing = shell::output(Command::new("ldd").arg(binary))?;
    Ok(listing
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
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
    for (source, destination) in &recipe.files {
        let target = context.join("rootfs").join(destination.strip_prefix("/")?);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(source, &target).with_context(|| format!("copy {}", source.display()))?;
    }
    std::fs::write(context.join("Dockerfile"), &recipe.dockerfile)?;
    let image = format!("localhost/nebula-build/{}:latest", recipe.name);
    shell::run(
        buildah(settings)
            .args(["build", "--isolation", "chroot", "--pull=never", "--quiet", "--tag", &image])
            .arg(&context),
    )?;
    let partial = archive.with_extension("partial");
    let mut push = buildah(settings);
    push.args(["push", "--quiet", &image]);
    // The archive carries the first name; the rest are given when it is imported.
    let first = recipe.tags.first().context("an image needs a name")?;
    push.arg(format!("docker-archive:{}:{first}", partial.display()));
    let _ = std::fs::remove_file(&partial);
    shell::run(&mut push)?;
    shell::run(buildah(settings).args(["rmi", "--force", &image]))?;
    std::fs::remove_dir_all(&context)?;
    remove_older(&directory, &recipe.name, &archive)?;
    std::fs::write(archive.with_extension("tags"), recipe.tags.join("\n"))?;
    std::fs::rename(&partial, &archive)?;
    Ok(archive)
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
