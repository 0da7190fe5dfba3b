//! The objects in the cluster: a namespace with a Gateway, a backend outside the cluster, and routes.

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use kube::Client;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backend;

/// Creates at the same time while the gateway is filled.
const CONCURRENCY: usize = 16;
/// For the Gateway to have an address.
const GATEWAY_LIMIT: Duration = Duration::from_mins(2);
/// For the namespace of an earlier run to go.
const NAMESPACE_LIMIT: Duration = Duration::from_mins(2);
/// The gateway's telemetry port.
const TELEMETRY_PORT: u16 = 15020;

/// The namespace of a run.
pub struct Cluster {
    client: Client,
    namespace: String,
}

/// What the gateway's process needs.
#[derive(Serialize)]
pub struct Footprint {
    /// Resident memory of the gateway's process.
    pub rss_bytes: u64,
    /// Series in its exposition.
    pub series: usize,
}

impl Cluster {
    /// Makes the namespace, the backend and the Gateway.
    pub async fn prepare(namespace: &str, class: &str) -> Result<Self> {
        let config = kube::Config::infer().await.context("find a kubeconfig")?;
        let backend = backend::serve(own_address(&config.cluster_url)?)?;
        let cluster = Self { client: Client::try_from(config)?, namespace: namespace.to_owned() };
        cluster.create_namespace().await?;
        let prepared = cluster.create_objects(backend, class).await;
        if prepared.is_err() {
            cluster.remove().await?;
        }
        prepared.map(|()| cluster)
    }

    /// Waits for the last run's namespace to be gone.
    async fn create_namespace(&self) -> Result<()> {
        let (since, namespace) = (Instant::now(), json!({"metadata": {"name": self.namespace}}));
        loop {
            match self.post("/api/v1/namespaces", &namespace).await {
                Err(error) if is_conflict(&error) && since.elapsed() < NAMESPACE_LIMIT => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn create_objects(&self, backend: SocketAddr, class: &str) -> Result<()> {
        let service =
            json!({"metadata": {"name": "backend"}, "spec": {"ports": [{"port": 80, "targetPort": backend.port()}]}});
        self.post(&self.path("/api/v1", "services"), &service).await?;
        let slice = json!({
            "metadata": {"name": "backend", "labels": {"kubernetes.io/service-name": "backend"}},
            "addressType": if backend.is_ipv4() { "IPv4" } else { "IPv6" },
            "ports": [{"name": "", "port": backend.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [backend.ip().to_string()], "conditions": {"ready": true}}],
        });
        self.post(&self.path("/apis/discovery.k8s.io/v1", "endpointslices"), &slice).await?;
        let gateway = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "bench"},
            "spec": {"gatewayClassName": class, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        });
        self.post(&self.gateway_api("gateways"), &gateway).await
    }

    /// Deletes the namespace, and all that is in it.
    pub async fn remove(&self) -> Result<()> {
        self.call(Method::DELETE, &format!("/api/v1/namespaces/{}", self.namespace), Vec::new()).await.map(drop)
    }

    /// Waits for the Gateway's address.
    pub async fn gateway_address(&self) -> Result<SocketAddr> {
        let since = Instant::now();
        let path = format!("{}/bench", self.gateway_api("gateways"));
        loop {
            let gateway = self.call(Method::GET, &path, Vec::new()).await?;
            let address = gateway.pointer("/status/addresses/0/value").and_then(Value::as_str);
            if let Some(address) = address.and_then(|address| address.parse::<IpAddr>().ok()) {
                return Ok((address, 80).into());
            }
            if since.elapsed() > GATEWAY_LIMIT {
                bail!("the Gateway has no address; its status is {}", gateway.get("status").unwrap_or(&Value::Null));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Creates a route; returns when the API server has said 201.
    pub async fn create_route(&self, name: &str) -> Result<()> {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": name},
            "spec": {
                "parentRefs": [{"name": "bench"}],
                "hostnames": [host(name)],
                "rules": [{"backendRefs": [{"name": "backend", "port": 80}]}],
            },
        });
        self.post(&self.gateway_api("httproutes"), &route).await
    }

    /// Creates routes, several at a time.
    pub async fn create_routes(&self, names: &[String]) -> Result<()> {
        let creates = names.iter().map(|name| self.create_route(name));
        futures::stream::iter(creates).buffer_unordered(CONCURRENCY).try_collect().await
    }

    /// Creates a RateLimitPolicy of the Gateway that nothing meets, but that every route has on its way.
    pub async fn create_gateway_policy(&self) -> Result<()> {
        self.create_policy("bench", "Gateway", "bench").await
    }

    /// Creates a RateLimitPolicy for each of these routes, several at a time.
    pub async fn create_route_policies(&self, routes: impl Iterator<Item = String>) -> Result<()> {
        let create = |route: String| async move { self.create_policy(&route, "HTTPRoute", &route).await };
        futures::stream::iter(routes.map(create)).buffer_unordered(CONCURRENCY).try_collect().await
    }

    async fn create_policy(&self, name: &str, kind: &str, target: &str) -> Result<()> {
        let policy = json!({
            "apiVersion": "nebula.dev/v1alpha1",
            "kind": "RateLimitPolicy",
            "metadata": {"name": name},
            "spec": {
                "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": kind, "name": target}],
                "limits": {"client": {"rate": 1_000_000, "per": "1s"}},
            },
        });
        self.post(&self.path("/apis/nebula.dev/v1alpha1", "ratelimitpolicies"), &policy).await
    }

    /// Deletes a route; does not wait for the gateway.
    pub async fn delete_route(&self, name: &str) -> Result<()> {
        self.call(Method::DELETE, &format!("{}/{name}", self.gateway_api("httproutes")), Vec::new()).await.map(drop)
    }

    /// Reads the gateway's metrics through the API server.
    pub async fn footprint(&self) -> Result<Footprint> {
        let selector = "labelSelector=gateway.networking.k8s.io%2Fgateway-name%3Dbench";
        let pods = self.call(Method::GET, &format!("{}?{selector}", self.path("/api/v1", "pods")), Vec::new()).await?;
        let pod = pods.pointer("/items/0/metadata/name").and_then(Value::as_str).context("the Gateway has no pod")?;
        let path = format!("{}/{pod}:{TELEMETRY_PORT}/proxy/metrics", self.path("/api/v1", "pods"));
        let metrics = self.client.request_text(Request::get(path).body(Vec::new())?).await?;
        let resident = metrics
            .lines()
            .filter(|line| !line.starts_with('#'))
            .find(|line| line.contains("process_resident_memory_bytes"))
            .and_then(|line| line.rsplit(' ').next()?.parse().ok());
        Ok(Footprint {
            rss_bytes: resident.context("the gateway does not tell its memory")?,
            series: metrics.lines().filter(|line| !line.starts_with('#')).count(),
        })
    }

    fn path(&self, api: &str, kind: &str) -> String {
        format!("{api}/namespaces/{}/{kind}", self.namespace)
    }

    fn gateway_api(&self, kind: &str) -> String {
        self.path("/apis/gateway.networking.k8s.io/v1", kind)
    }

    async fn post(&self, path: &str, object: &Value) -> Result<()> {
        self.call(Method::POST, path, serde_json::to_vec(object)?).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Value> {
        let request =
            Request::builder().method(&method).uri(path).header("content-type", "application/json").body(body)?;
        self.client.request(request).await.with_context(|| format!("{method} {path}"))
    }
}

/// Whether the API server says 409.
fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 409)
}

/// The host that the route `name` serves.
pub fn host(name: &str) -> String {
    format!("{name}.bench.example.com")
}

/// The address of this machine that the cluster can reach: the one from which the API server is reached.
fn own_address(api_server: &http::Uri) -> Result<IpAddr> {
    let host = api_server.host().context("the kubeconfig names no API server")?.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, api_server.port_u16().unwrap_or(443)))?;
    Ok(stream.local_addr()?.ip())
}
