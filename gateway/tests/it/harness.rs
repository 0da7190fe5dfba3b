//! A gateway process of a test's own, a folder for it to serve, backends to stand behind it, and a plain client.

use std::{
    convert::Infallible,
    fs,
    future::Future,
    io::{BufRead as _, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kit_testing::free_port;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};

/// How long anything may take before a test fails. Generous: machines that test are busy.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `check` gives something.
///
/// # Panics: after [`DEADLINE`], saying what did not come.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let end = Instant::now() + DEADLINE + DEADLINE / 10;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        sleep(POLL).await;
    }
}

/// A folder of configuration.
pub struct Folder(TempDir);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with these files.
    pub fn with<const N: usize>(files: [(&str, String); N]) -> Self {
        let folder = Self::new();
        for (name, text) in files {
            folder.write(name, &text);
        }
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes in place, as an editor of the simplest kind does.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    /// Puts a new file in the place of the old one, in one step.
    pub fn replace(&self, name: &str, text: &str) {
        let aside = self.file(&format!(".{name}.new"));
        fs::write(&aside, text).unwrap();
        fs::rename(aside, self.file(name)).unwrap();
    }

    /// Moves the old file away and writes a new one, as editors do that keep a backup.
    pub fn write_with_backup(&self, name: &str, text: &str) {
        fs::rename(self.file(name), self.file(&format!("{name}~"))).unwrap();
        fs::write(self.file(name), text).unwrap();
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }
}

/// A running gateway. It is killed when it is dropped.
pub struct Gateway {
    child: Child,
    log: Arc<Mutex<String>>,
    access_log: Arc<Mutex<String>>,
    started: Instant,
    /// Where port 8080 is bound.
    pub http: u16,
    /// Where port 8443 is bound.
    pub https: u16,
    pub admin: u16,
    pub telemetry: u16,
}

impl Gateway {
    /// Starts the binary on `folder`, with every port of its own.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// As [`Self::start`], with more arguments.
    pub fn start_with(folder: &Path, arguments: &[&str]) -> Self {
        let [http, https, admin, telemetry] = [(); 4].map(|()| free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command
            .arg("--config")
            .arg(folder)
            .args(["--workers", "2"])
            .args(["--port-map", &format!("8080={http}"), "--port-map", &format!("8443={https}")])
            .args(["--admin-address", &format!("127.0.0.1:{admin}")])
            .args(["--telemetry-address", &format!("127.0.0.1:{telemetry}")])
            .args(arguments);
        Self::spawn(command, [http, https, admin, telemetry])
    }

    /// Runs `command`; `ports` are http, https, admin and telemetry.
    pub fn spawn(mut command: Command, [http, https, admin, telemetry]: [u16; 4]) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap();
        let log = Arc::<Mutex<String>>::default();
        gather(child.stderr.take().unwrap(), log.clone());
        let access_log = Arc::<Mutex<String>>::default();
        gather(child.stdout.take().unwrap(), access_log.clone());
        Self { child, log, access_log, started, http, https, admin, telemetry }
    }

    /// Starts it and waits until it is ready.
    pub async fn ready(folder: &Folder) -> Self {
        let gateway = Self::start(folder.path());
        gateway.is_ready().await;
        gateway
    }

    /// Waits until readiness says so.
    pub async fn is_ready(&self) {
        let check = || async {
            let answer = try_get(self.telemetry, "/readyz").await.ok()?;
            (answer.status == 200).then_some(())
        };
        let end = timeout(DEADLINE, eventually("ready", check)).await;
        assert!(end.is_ok(), "log:\n{}", self.log());
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    /// Waits for a line of the log that holds `text`.
    pub async fn logged(&self, text: &str) -> String {
        line_with(&self.log, text).await
    }

    /// Waits for a line of the access log that holds `text`.
    pub async fn access_logged(&self, text: &str) -> String {
        line_with(&self.access_log, text).await
    }

    /// Time since the process was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub async fn get(&self, path: &str) -> Answer {
        try_get(self.http, path).await.unwrap_or_else(|error| panic!("GET {path}: {error}\nlog:\n{}", self.log()))
    }

    /// Waits until `GET path` is answered with `status`.
    pub async fn answers(&self, path: &str, status: u16) -> Answer {
        let what = format!("GET {path} answers {status}");
        eventually(&what, || async { try_get(self.http, path).await.ok().filter(|answer| answer.status == status) })
            .await
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the end of the process.
    pub async fn exit(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "still runs; log:\n{}", self.log());
            sleep(POLL).await;
        }
    }
}

/// Keeps what comes out of a process.
fn gather(output: impl Read + Send + 'static, sink: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut log = sink.lock();
            log.push_str(&line);
            log.push('\n');
        }
    });
}

async fn line_with(log: &Mutex<String>, text: &str) -> String {
    let line = || async { log.lock().lines().find(|line| line.contains(text)).map(str::to_owned) };
    let Ok(line) = timeout(DEADLINE, eventually(text, line)).await else {
        panic!("no line with {text:?} in the log:\n{}", log.lock())
    };
    line
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub type ClientError = Box<dyn std::error::Error + Send + Sync>;

/// One request on a connection of its own.
pub async fn try_get(port: u16, path: &str) -> Result<Answer, ClientError> {
    Client::connect(port).await?.get(path).await
}

/// A connection that is kept.
pub struct Client {
    port: u16,
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn connect(port: u16) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        spawn(async move { drop(connection.await) });
        Ok(Self { port, sender })
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, ClientError> {
        let request = Request::get(path).header("host", format!("127.0.0.1:{}", self.port)).body(Full::default())?;
        self.send(request).await
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        self.sender.ready().await?;
        let response = timeout(DEADLINE, self.sender.send_request(request)).await??;
        let (head, body) = response.into_parts();
        let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Whether the other side has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Serves HTTP/1.1 and h2c on a free loopback port until the test ends.
pub async fn backend<F, R, B>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<ClientError>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// A backend that answers every request with `text`.
pub async fn says(text: &'static str) -> SocketAddr {
    backend(move |_| async move { Response::new(Full::new(Bytes::from(text))) }).await
}

/// A Gateway `edge` with an HTTP listener on port 8080 of loopback.
pub fn gateway() -> String {
    gateway_with("    - {name: http, protocol: HTTP, port: 8080}\n")
}

/// A Gateway `edge` on loopback with these listeners, each a list item indented by four.
pub fn gateway_with(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec:\n  \
         gatewayClassName: nebula\n  addresses: [{{type: IPAddress, value: 127.0.0.1}}]\n  listeners:\n{listeners}"
    )
}

/// An HTTPRoute of `edge` that leads everything below `path` to port 80 of a Service.
pub fn route(name: &str, path: &str, service: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  \
         parentRefs: [{{name: edge}}]\n  rules:\n  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]\n    \
         backendRefs: [{{name: {service}, port: 80}}]\n"
    )
}

/// A Service whose port 80 is at `address`.
pub fn service(name: &str, address: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  annotations: {{nebula.dev/endpoints: \
         \"{address}\"}}\nspec: {{ports: [{{port: 80}}]}}\n"
    )
}
