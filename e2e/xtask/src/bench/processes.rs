//! Processes under measurement: started on chosen CPUs, read through /proc, stopped by their id.
//! Invariant: a child ends with its [`Running`], and with this program even where it is killed (`setpriv --pdeathsig`).

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Which CPUs the subject has for itself, and which the client and the upstream share. `None`: the kernel decides.
#[derive(Clone, Debug)]
pub struct Placement {
    pub subject: Option<String>,
    pub load: Option<String>,
}

/// A command that runs `program` on `cpus`, and dies with this process. It keeps its process id through both wrappers.
pub fn command(program: &Path, cpus: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(cpus) = cpus {
        command.args(["taskset", "-c", cpus]);
    }
    command.arg(program);
    command
}

/// A child with its log.
pub struct Running {
    child: Child,
    name: &'static str,
    log: std::path::PathBuf,
}

impl Running {
    /// Starts `command` with its standard error in `log` and its standard output thrown away.
    pub fn start(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", shell::describe(command)))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// Fails where the process has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status})\n{}", self.name, shell::tail_of(&self.log));
        }
        Ok(())
    }

    /// Asks the process to end.
    pub fn terminate(&self) -> Result<()> {
        shell::run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// CPU time of all threads so far, user and system.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = self.read("stat")?;
        // The name, in brackets, may hold spaces; utime and stime are the 14th and 15th field (proc(5)).
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |field: usize| -> Result<u32> { Ok(fields.get(field).context("short /proc/PID/stat")?.parse()?) };
        Ok(Duration::from_secs(1) * (ticks(11)? + ticks(12)?) / ticks_per_second()?)
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = self.read("status")?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = kibibytes.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("read {path} of {}", self.name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ticks_per_second() -> Result<u32> {
    Ok(shell::output(Command::new("getconf").arg("CLK_TCK"))?.trim().parse()?)
}

/// `N` ports of 127.0.0.1 that are free now.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
