//! The process that holds a cluster: started in namespaces of its own, found again and ended by its recorded identity.
//! Invariant: a process is only signalled when its start time is the recorded one, so a PID that was given to another
//! program meanwhile is never touched. When the first process of the PID namespace ends, the kernel ends all the others,
//! and with the last of them the mounts and interfaces go.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock::wait_for;
use crate::shell;

/// A process by PID and start time (field 22 of `/proc/PID/stat`), which together name it until the machine restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pid: i32,
    started: u64,
}

impl Identity {
    /// `None` when there is no such process, or only its exit status is left of it.
    fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in brackets and may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, started })
    }

    fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    fn end(self) -> Result<()> {
        if self.alive() {
            // Gone between the look and the signal is as good.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        wait_for(&format!("process {} to end", self.pid), Duration::from_secs(20), || Ok(!self.alive()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }
}

/// A node that is being started. Dropped before [`Starting::hand_over`], it ends, however this program ends.
pub struct Starting {
    child: Child,
    init: Identity,
}

impl Starting {
    /// Starts `kubenode node` with the configuration in `directory`, in new network, mount and PID namespaces.
    /// It waits for [`Starting::network_laid`] before it starts anything.
    pub fn spawn(directory: &Path, kubenode: &Path) -> Result<Self> {
        let log = File::create(directory.join("log/node.log"))?;
        let mut child = Command::new("setsid")
            .args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--"])
            .arg(kubenode)
            .arg("node")
            .arg(directory.join("node.json"))
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the node (unshare of util-linux)")?;
        let outer = i32::try_from(child.id())?;
        let mut init = None;
        wait_for("the node's first process", Duration::from_secs(10), || {
            if let Some(status) = child.try_wait()? {
                bail!("the node ended at once ({status})\n{}", shell::tail_of(&directory.join("log/node.log")));
            }
            let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap_or_default();
            init = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Identity::of);
            Ok(init.is_some())
        })?;
        let init = init.context("the node's first process")?;
        std::fs::write(directory.join("node.pid"), format!("{} {}\n", init.pid, init.started))?;
        Ok(Self { child, init })
    }

    /// The PID of the first process, as the machine sees it.
    pub fn init(&self) -> i32 {
        self.init.pid
    }

    /// Lets the node start its components.
    pub fn network_laid(&mut self) -> Result<()> {
        self.tell(b"n")
    }

    /// # Errors: the node has ended.
    pub fn check(&mut self, directory: &Path) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the node ended ({status})\n{}", shell::tail_of(&directory.join("log/node.log"))),
        }
    }

    /// From here on the node lives until somebody takes it down.
    pub fn hand_over(mut self) -> Result<()> {
        self.tell(b"k")
    }

    fn tell(&mut self, word: &[u8]) -> Result<()> {
        let input = self.child.stdin.as_mut().context("the node's input")?;
        input.write_all(word).and_then(|()| input.flush()).context("speak to the node")
    }
}

/// The process recorded in `directory`, if it still runs.
pub fn running(directory: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(directory.join("node.pid")).ok()?;
    Identity::parse(&text).filter(|identity| identity.alive()).map(|identity| identity.pid)
}

/// Ends the node recorded in `directory`, with everything that runs in it. Nothing recorded is fine.
pub fn end(directory: &Path) -> Result<()> {
    let path = directory.join("node.pid");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(()) };
    let identity = Identity::parse(&text).with_context(|| format!("{}: not a process", path.display()))?;
    identity.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_taken_for_another_with_its_number() {
        let me = Identity::of(i32::try_from(std::process::id()).expect("a PID")).expect("this process");
        assert!(me.alive());
        assert!(!Identity { started: me.started + 1, ..me }.alive());
        assert_eq!(Identity::parse(&format!("{} {}\n", me.pid, me.started)), Some(me));
        assert_eq!(Identity::parse("12"), None);
    }
}
