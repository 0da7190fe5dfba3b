//! A real Prometheus of a test's own, with storage for exemplars.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::kubernetes::Skip;

/// It ends when the guard is dropped.
pub struct Prometheus {
    process: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Prometheus {
    /// Starts the program of that name on PATH, which asks `target` for its metrics twice a second.
    ///
    /// # Errors: [`Skip`] where there is no such program.
    pub fn scraping(target: SocketAddr) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("prometheus.yml");
        std::fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}
scrape_configs:
- job_name: gateway
  static_configs: [{{targets: ['{target}']}}]
"
            ),
        )?;
        // A port that was free a moment ago; Prometheus ends at once if it is not any more.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = File::create(directory.path().join("log"))?;
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        match process {
            Ok(process) => Ok(Self { process, address, directory }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Skip("there is no prometheus on PATH (Debian: prometheus)").into())
            }
            Err(error) => Err(error).context("start prometheus"),
        }
    }

    /// The values of one label of all exemplars of a metric.
    ///
    /// # Errors: it does not answer; what it logged says why.
    pub fn exemplars(&self, metric: &str, label: &str) -> Result<BTreeSet<String>> {
        let path = format!("/api/v1/query_exemplars?query={metric}");
        let answer = http::get(self.address, "localhost", &path).with_context(|| self.log())?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        let answer: Value = serde_json::from_str(&answer.body)?;
        let array = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_array).cloned();
        let series = array(&answer, "/data").unwrap_or_default();
        let exemplars = series.iter().flat_map(|series| array(series, "/exemplars").unwrap_or_default());
        Ok(exemplars.filter_map(|exemplar| Some(exemplar.get("labels")?.get(label)?.as_str()?.to_owned())).collect())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
