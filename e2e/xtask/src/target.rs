//! The Kubernetes that a command works on: a cluster of this machine, or any other by its kubeconfig.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;

use crate::artifacts::Artifact;
use crate::cluster::{self, Cluster};
use crate::settings::Settings;
use crate::shell;

/// Flags that choose the cluster.
#[derive(Args, Clone, Debug)]
pub struct Choice {
    /// Another cluster than one of this machine. Its nodes must have the images already.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A cluster of `cargo xtask cluster`; started for this run, and stopped after it, if it does not run.
    #[arg(long, conflicts_with = "kubeconfig")]
    name: Option<String>,
    /// Leave running (and installed) what this run started.
    #[arg(long)]
    keep: bool,
}

impl Choice {
    /// A cluster of that name; if it was started, it is stopped at the end unless it is to be kept.
    pub fn of_name(name: &str, keep: bool) -> Self {
        Self { kubeconfig: None, name: Some(name.to_owned()), keep }
    }
}

/// A Kubernetes that answers.
pub struct Kubernetes {
    kubeconfig: PathBuf,
    local: Option<Cluster>,
}

impl Kubernetes {
    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// The cluster of this machine, which images can be loaded into.
    pub fn local(&self) -> Option<&Cluster> {
        self.local.as_ref()
    }

    /// kubectl with the right configuration.
    pub fn kubectl(&self, settings: &Settings) -> Result<Command> {
        kubectl(settings, &self.kubeconfig)
    }

    /// The real helm, with the right configuration and no plugins or repositories of the user's.
    pub fn helm(&self, settings: &Settings) -> Result<Command> {
        let mut command = Command::new(Artifact::Helm.get(settings)?);
        let home = settings.cache.join("helm");
        command.env("HELM_CACHE_HOME", home.join("cache")).env("HELM_CONFIG_HOME", home.join("config"));
        command.env("HELM_DATA_HOME", home.join("data")).env("KUBECONFIG", &self.kubeconfig);
        Ok(command)
    }
}

/// kubectl from PATH or, where there is none, built from the cluster's own sources.
pub fn kubectl(settings: &Settings, kubeconfig: &std::path::Path) -> Result<Command> {
    let program = match shell::find_program("kubectl") {
        Some(program) => program,
        None => Artifact::Kubectl.get(settings)?,
    };
    let mut command = Command::new(program);
    command.arg("--kubeconfig").arg(kubeconfig);
    Ok(command)
}

/// Runs `work` with the chosen cluster, started first where need be; what was started is stopped again, also after an
/// error or when this program is killed, unless it is to be kept.
pub fn with<T>(settings: &Settings, choice: &Choice, work: impl FnOnce(&Kubernetes) -> Result<T>) -> Result<T> {
    if let (Some(kubeconfig), None) = (&choice.kubeconfig, &choice.name) {
        ensure!(kubeconfig.is_file(), "{}: no such kubeconfig", kubeconfig.display());
        let local = Cluster::of_kubeconfig(settings, kubeconfig)?;
        return work(&Kubernetes { kubeconfig: kubeconfig.clone(), local });
    }
    let cluster = Cluster::named(settings, choice.name.as_deref().unwrap_or(cluster::DEFAULT))?;
    let started = cluster::up_for_this_run(settings, &cluster)?;
    let result = work(&Kubernetes { kubeconfig: cluster.kubeconfig(), local: Some(cluster.clone()) });
    let ended = match started {
        Some(started) if choice.keep => started.keep(),
        Some(_ends_when_dropped) => cluster.down(settings),
        None => Ok(()),
    };
    result.and_then(|value| ended.map(|()| value))
}
