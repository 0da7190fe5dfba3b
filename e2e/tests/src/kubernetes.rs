//! A cluster as its user sees it: through kubectl and helm.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::clock::eventually;

/// Time for what a controller does, on a machine that has other things to do.
pub const LIMIT: Duration = Duration::from_mins(1);

/// A cluster with the product in it.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// Of an administrator.
    pub kubeconfig: PathBuf,
    /// The program.
    pub kubectl: PathBuf,
    /// The program.
    pub helm: PathBuf,
    /// The root of the checkout, where the charts are.
    pub repository: PathBuf,
}

impl Kubernetes {
    /// Runs kubectl and answers what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        run(command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments), "")
    }

    /// Runs helm in the root of the checkout and answers what it printed.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.helm);
        command.current_dir(&self.repository).env("KUBECONFIG", &self.kubeconfig);
        run(command.args(arguments), "")
    }

    /// Applies objects in YAML.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args([
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
        ]);
        run(&mut command, yaml).map(drop)
    }

    /// One object; `None` when there is none of that name.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&["get", kind, name, "--namespace", namespace, "--ignore-not-found", "-o", "json"])?;
        if text.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&text)?)) }
    }

    /// The objects with those labels.
    pub fn list(&self, namespace: &str, kind: &str, selector: &str) -> Result<Vec<Value>> {
        let text = self.kubectl(&["get", kind, "--namespace", namespace, "--selector", selector, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
    }

    /// Waits until the object satisfies `done`, which answers what is still missing.
    pub fn wait(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        mut done: impl FnMut(&Value) -> Result<(), String>,
    ) -> Result<Value> {
        eventually(&format!("{kind} {namespace}/{name}"), LIMIT, || {
            let object = self.get(namespace, kind, name).map_err(|error| format!("{error:#}"))?;
            let object = object.ok_or_else(|| "does not exist".to_owned())?;
            done(&object).map(|()| object)
        })
    }

    /// Waits until a rollout is complete.
    pub fn rolled_out(&self, namespace: &str, deployment: &str) -> Result<()> {
        let target = format!("deployment/{deployment}");
        self.kubectl(&["rollout", "status", &target, "--namespace", namespace, "--timeout=120s"]).map(drop)
    }

    /// Leads a port of this machine to one of a pod, until the guard is dropped. `target` is a pod or what has pods.
    pub fn forward(&self, namespace: &str, target: &str, port: u16) -> Result<Forwarded> {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["port-forward", "--namespace", namespace, target]);
        command.args(["--address", "127.0.0.1", &format!(":{port}")]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start kubectl")?;
        let output = process.stdout.take().context("the output of kubectl")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut forwarded = Forwarded { process, address, output: BufReader::new(output) };
        let mut line = String::new();
        // `Forwarding from 127.0.0.1:40123 -> 15020`; nothing when kubectl has ended, with its reason on standard error.
        forwarded.output.read_line(&mut line)?;
        let address = line.split_whitespace().find_map(|word| word.parse().ok());
        forwarded.address = address.with_context(|| format!("kubectl does not forward: {line:?}"))?;
        Ok(forwarded)
    }

    /// A namespace that goes when the guard is dropped; one left by a killed run is removed first.
    pub fn namespace(&self, name: &str) -> Result<Namespace<'_>> {
        self.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait"])?;
        self.kubectl(&["create", "namespace", name])?;
        Ok(Namespace { kubernetes: self, name: name.to_owned() })
    }
}

/// A port of this machine that leads into the cluster.
pub struct Forwarded {
    process: Child,
    address: SocketAddr,
    /// Kept open: kubectl says a line for each connection, and ends when nobody is there to read it.
    output: BufReader<ChildStdout>,
}

impl Forwarded {
    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Said by a test that cannot run on this cluster; counted as skipped.
#[derive(Debug)]
pub struct Skip(pub &'static str);

impl std::fmt::Display for Skip {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for Skip {}

/// A process of the cluster that is stopped (as a machine that hangs) until the guard is dropped.
pub struct Stopped(String);

impl Stopped {
    /// Stops the API server of a cluster that `cargo xtask cluster` made on this machine: the child of its recorded first
    /// process that runs `kube-apiserver`.
    ///
    /// # Errors: [`Skip`] for any other cluster.
    pub fn api_server(kubernetes: &Kubernetes) -> Result<Self> {
        let record = kubernetes.kubeconfig.with_file_name("node.pid");
        let Ok(record) = std::fs::read_to_string(record) else {
            return Err(Skip("the cluster is not one of this machine, so its API server cannot be stopped").into());
        };
        let init = record.split_whitespace().next().context("a process")?.to_owned();
        let mut all = String::new();
        for thread in std::fs::read_dir(format!("/proc/{init}/task"))? {
            all += &std::fs::read_to_string(thread?.path().join("children"))?;
        }
        let is_server = |pid: &&str| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"kube-apiserver")
        };
        let pid = all.split_whitespace().find(is_server).context("the API server's process")?.to_owned();
        signal("-STOP", &pid)?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Gone meanwhile is as good: its supervisor starts another.
        let _ = signal("-CONT", &self.0);
    }
}

fn signal(name: &str, pid: &str) -> Result<()> {
    run(Command::new("kill").args([name, pid]), "").map(drop)
}

/// A namespace of one test.
pub struct Namespace<'a> {
    /// The cluster it is in.
    pub kubernetes: &'a Kubernetes,
    /// Its name.
    pub name: String,
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // What cannot be deleted is deleted by the next run.
        let _ = self.kubernetes.kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
    }
}

/// Whether one of the object's conditions below `pointer` has that type, status and reason.
pub fn has_condition(object: &Value, pointer: &str, kind: &str, status: &str, reason: &str) -> Result<(), String> {
    let conditions = object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let generation = object.pointer("/metadata/generation");
    let found = conditions.iter().any(|condition| {
        let is = |field: &str, wanted: &str| condition.get(field).and_then(Value::as_str) == Some(wanted);
        is("type", kind)
            && is("status", status)
            && is("reason", reason)
            && condition.get("observedGeneration") == generation
    });
    if found { Ok(()) } else { Err(format!("wanted {kind}={status} ({reason}), has {}", Value::Array(conditions))) }
}

fn run(command: &mut Command, input: &str) -> Result<String> {
    let line = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading says why by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
