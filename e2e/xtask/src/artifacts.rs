//! Programs in Go that the cluster and the suites need, built once and kept in the cache.
//! Invariant: a file in the cache is complete, and its directory's name is a hash of everything that went into it: the
//! module's sources with `go.mod` and `go.sum` (where every version is pinned), the build flags and the version of Go.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::clock::Stopwatch;
use crate::settings::Settings;
use crate::shell;

/// What can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Artifact {
    /// Every Kubernetes component in one program.
    Kubenode,
    /// The sandbox container of pods.
    Pause,
    /// The cluster's name server.
    CoreDns,
    /// The real helm.
    Helm,
    /// For machines that have no kubectl.
    Kubectl,
    /// The official Gateway API suite as a test binary.
    ConformanceSuite,
    /// The suite's backend.
    EchoBasic,
}

struct Recipe {
    name: &'static str,
    module: &'static str,
    build: &'static [&'static str],
}

impl Artifact {
    /// What `cargo xtask test` needs, the slowest first.
    pub const FOR_TESTS: [Self; 6] =
        [Self::Kubenode, Self::Helm, Self::CoreDns, Self::ConformanceSuite, Self::EchoBasic, Self::Pause];

    fn recipe(self) -> Recipe {
        let (name, module, build): (_, _, &'static [&'static str]) = match self {
            Self::Kubenode => ("kubenode", "e2e/cluster/kubenode", &["build", "."]),
            Self::Pause => ("pause", "e2e/cluster/pause", &["build", "."]),
            Self::CoreDns => ("coredns", "e2e/cluster/coredns", &["build", "."]),
            Self::Helm => ("helm", "e2e/cluster/helm", &["build", "helm.sh/helm/v3/cmd/helm"]),
            Self::Kubectl => ("kubectl", "e2e/cluster/kubectl", &["build", "."]),
            Self::ConformanceSuite => ("conformance-suite", "e2e/conformance", &["test", "-c", "."]),
            Self::EchoBasic => {
                ("echo-basic", "e2e/conformance", &["build", "sigs.k8s.io/gateway-api/conformance/echo-basic"])
            }
        };
        Recipe { name, module, build }
    }

    /// The path of the program, built first if the cache does not have it. Two processes that ask at once build once.
    pub fn get(self, settings: &Settings) -> Result<PathBuf> {
        let recipe = self.recipe();
        let module = settings.file(recipe.module);
        let directory = settings.cache.join("artifacts").join(format!("{}-{}", recipe.name, key(&recipe, &module)?));
        let program = directory.join(recipe.name);
        if program.exists() {
            return Ok(program);
        }
        std::fs::create_dir_all(&directory)?;
        let lock = File::create(directory.join("lock"))?;
        lock.lock()?;
        if program.exists() {
            return Ok(program);
        }
        println!("building {} (kept in {})", recipe.name, directory.display());
        let watch = Stopwatch::start();
        let partial = directory.join("partial");
        let [verb, rest @ ..] = recipe.build else { anyhow::bail!("{}: no build command", recipe.name) };
        let mut command = Command::new("go");
        command.current_dir(&module).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").arg(verb);
        let (flags, package) = rest.split_at(rest.len().saturating_sub(1));
        command.args(flags).arg(format!("-ldflags={}", linker_flags(&module)?)).arg("-o").arg(&partial).args(package);
        shell::logged(&mut command, &directory.join("build.log")).with_context(|| format!("build {}", recipe.name))?;
        std::fs::rename(&partial, &program)?;
        println!("built {} in {watch}", recipe.name);
        Ok(program)
    }
}

/// Kubernetes asks its own binary for its version, which `go.mod` states; charts and clients read it from the API server.
fn linker_flags(module: &Path) -> Result<String> {
    let mut flags = "-s -w".to_owned();
    let manifest = module.join("go.mod");
    let text = std::fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
    let version = text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
    if let Some(version) = version {
        let mut parts = version.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for (name, value) in
            [("gitVersion", format!("v{version}")), ("gitMajor", major.to_owned()), ("gitMinor", minor.to_owned())]
        {
            write!(flags, " -X k8s.io/component-base/version.{name}={value}")?;
        }
    }
    Ok(flags)
}

fn key(recipe: &Recipe, module: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(shell::output(Command::new("go").arg("version")).context("Go is needed to build the cluster")?);
    hash.update(format!("{:?} CGO_ENABLED=0 {}\n", recipe.build, linker_flags(module)?));
    hash_files(&mut hash, module)?;
    Ok(short(hash))
}

/// Adds the names and contents of the files directly in `directory` to the hash, in order of name.
pub fn hash_files(hash: &mut Sha256, directory: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let source = Path::new(&name).extension().is_some_and(|extension| extension == "go")
            || name == "go.mod"
            || name == "go.sum";
        if source && entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(std::fs::read(&file)?);
    }
    Ok(())
}

/// Enough of the hash to tell versions apart by eye.
pub fn short(hash: Sha256) -> String {
    let mut text = hex::encode(hash.finalize());
    text.truncate(16);
    text
}
