//! What a proxy may ask for is decided by its token. Driven with the real binary, in pods of the test's own that differ
//! from a proxy that is served in the one thing that is judged.

use anyhow::{Context, Result, ensure};
use e2e_tests::clock::eventually;
use e2e_tests::gateway::{CONTROL_PLANE, SYSTEM, TRUST_BUNDLE, gateway};
use e2e_tests::kubernetes::{Kubernetes, LIMIT, Namespace};
use serde_json::Value;

/// The audience of the control plane.
const OURS: &str = "nebula-control-plane";
/// The audience of the API server, which every cluster knows.
const API_SERVER: &str = "https://kubernetes.default.svc";

pub fn foreign_gateway(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-foreign")?;
    let own = "e2e-foreign/one";
    let yaml = ["one", "two"].map(|name| gateway("e2e-foreign", name, ""));
    kubernetes.apply(&yaml.concat())?;
    namespace.address("one")?;
    let other =
        Proxy { name: "intruder", account: &account(&namespace, "one")?, audience: OURS, gateway: "e2e-foreign/two" };
    let refusal = format!("the token belongs to a proxy of gateway {own}, not of {}", other.gateway);
    other.is_refused(&namespace, &refusal)?;
    Proxy { name: "proxy", gateway: own, ..other }.is_served(&namespace)
}

pub fn foreign_audience(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-audience")?;
    namespace.serve("edge", &gateway("e2e-audience", "edge", ""))?;
    let account = account(&namespace, "edge")?;
    let other = Proxy { name: "intruder", account: &account, audience: API_SERVER, gateway: "e2e-audience/edge" };
    other.is_refused(&namespace, "token refused: ")?;
    Proxy { name: "proxy", audience: OURS, ..other }.is_served(&namespace)
}

pub fn foreign_account(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-account")?;
    namespace.serve("edge", &gateway("e2e-account", "edge", ""))?;
    kubernetes.kubectl(&["create", "serviceaccount", "stranger", "--namespace", "e2e-account"])?;
    let other = Proxy { name: "intruder", account: "stranger", audience: OURS, gateway: "e2e-account/edge" };
    other.is_refused(&namespace, "token refused: ServiceAccount e2e-account/stranger belongs to no Gateway")
}

/// The ServiceAccount that the proxies of a Gateway run with.
fn account(namespace: &Namespace<'_>, gateway: &str) -> Result<String> {
    let proxies = namespace.proxies(gateway)?;
    let account = proxies.first().and_then(|proxy| proxy.pointer("/spec/template/spec/serviceAccountName"));
    Ok(account.and_then(Value::as_str).context("proxies have a ServiceAccount")?.to_owned())
}

/// A pod that runs the gateway.
#[derive(Clone, Copy)]
struct Proxy<'a> {
    name: &'a str,
    account: &'a str,
    audience: &'a str,
    /// What it asks for, as `namespace/name`.
    gateway: &'a str,
}

impl Proxy<'_> {
    /// Runs it until the control plane refuses it with that message.
    fn is_refused(&self, namespace: &Namespace<'_>, message: &str) -> Result<()> {
        let kubernetes = namespace.kubernetes;
        kubernetes.apply(&self.pod(&namespace.name))?;
        eventually(&format!("the proxy to be refused with {message:?}"), LIMIT, || {
            let log = kubernetes.kubectl(&["logs", self.name, "--namespace", &namespace.name]);
            let log = log.map_err(|error| format!("{error:#}"))?;
            if log.contains(message) { Ok(()) } else { Err(format!("its log: {log}")) }
        })?;
        let ready = kubernetes.get(&namespace.name, "pod", self.name)?.as_ref().and_then(readiness);
        ensure!(ready.as_deref() == Some("False"), "a proxy that got nothing says that it is ready: {ready:?}");
        Ok(())
    }

    /// Runs it until it has its configuration.
    fn is_served(&self, namespace: &Namespace<'_>) -> Result<()> {
        namespace.kubernetes.apply(&self.pod(&namespace.name))?;
        let served = namespace.kubernetes.wait(&namespace.name, "pod", self.name, |pod| match readiness(pod) {
            Some(ready) if ready == "True" => Ok(()),
            other => Err(format!("readiness {other:?}")),
        });
        served.map(drop)
    }

    fn pod(&self, namespace: &str) -> String {
        let Self { name, account, audience, gateway } = self;
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  serviceAccountName: {account}
  terminationGracePeriodSeconds: 1
  securityContext: {{sysctls: [{{name: net.ipv4.ip_unprivileged_port_start, value: \"0\"}}]}}
  containers:
  - name: gateway
    image: nebula/gateway:dev
    imagePullPolicy: IfNotPresent
    args: [--discovery, \"https://{CONTROL_PLANE}.{SYSTEM}.svc:15010\", --gateway, {gateway},
           --token-file, /var/run/nebula/token, --ca-file, /var/run/nebula-ca/ca.crt]
    readinessProbe: {{httpGet: {{path: /readyz, port: 15020}}, periodSeconds: 1}}
    volumeMounts:
    - {{name: token, mountPath: /var/run/nebula}}
    - {{name: ca, mountPath: /var/run/nebula-ca}}
  volumes:
  - name: token
    projected: {{sources: [{{serviceAccountToken: {{path: token, audience: \"{audience}\", expirationSeconds: 3600}}}}]}}
  - {{name: ca, configMap: {{name: {TRUST_BUNDLE}}}}}
"
        )
    }
}

/// The status of the pod's condition `Ready`.
fn readiness(pod: &Value) -> Option<String> {
    let conditions = pod.pointer("/status/conditions")?.as_array()?;
    let is_ready = |condition: &&Value| condition.get("type").and_then(Value::as_str) == Some("Ready");
    Some(conditions.iter().find(is_ready)?.get("status")?.as_str()?.to_owned())
}
