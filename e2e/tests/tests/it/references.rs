//! References that lead nowhere, or may not be followed: the share of traffic is refused and the status says why.

use anyhow::{Result, ensure};
use e2e_tests::gateway::{answers_status, echo, gateway, route, serving, steadily};
use e2e_tests::kubernetes::{Kubernetes, has_condition};
use serde_json::Value;

pub fn missing_backend(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-missing")?;
    let address = serving(kubernetes, &namespace)?;
    kubernetes.apply(&route("e2e-missing", "nowhere", "edge", "/nowhere", "nothing"))?;
    namespace.route_condition("nowhere", "ResolvedRefs", "False", "BackendNotFound")?;
    answers_status(address, "/nowhere", 500)?;
    steadily(address, "/nowhere", 500)?;
    // A bad route fails alone.
    steadily(address, "/", 200)?;
    kubernetes.apply(&echo("e2e-missing", "nothing"))?;
    namespace.route_condition("nowhere", "ResolvedRefs", "True", "ResolvedRefs")?;
    answers_status(address, "/nowhere", 200).map(drop)
}

pub fn grant_taken_away(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-grant")?;
    let backends = kubernetes.namespace("e2e-grant-backends")?;
    let grant = "apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: routes, namespace: e2e-grant-backends}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: e2e-grant}]
  to: [{group: \"\", kind: Service}]
";
    let yaml = gateway("e2e-grant", "edge", "")
        + &echo(&backends.name, "echo")
        + &route("e2e-grant", "across", "edge", "/", "e2e-grant-backends/echo");
    let address = namespace.serve("edge", &yaml)?;
    namespace.route_condition("across", "ResolvedRefs", "False", "RefNotPermitted")?;
    answers_status(address, "/", 500)?;
    kubernetes.apply(grant)?;
    namespace.route_condition("across", "ResolvedRefs", "True", "ResolvedRefs")?;
    answers_status(address, "/", 200)?;
    kubernetes.kubectl(&["delete", "referencegrant", "routes", "--namespace", &backends.name])?;
    namespace.route_condition("across", "ResolvedRefs", "False", "RefNotPermitted")?;
    answers_status(address, "/", 500)?;
    steadily(address, "/", 500)
}

pub fn missing_secret(kubernetes: &Kubernetes) -> Result<()> {
    let _namespace = kubernetes.namespace("e2e-secret")?;
    let listener = "  - name: https
    port: 443
    protocol: HTTPS
    tls: {mode: Terminate, certificateRefs: [{name: certificate}]}";
    let yaml = gateway("e2e-secret", "edge", listener)
        + &echo("e2e-secret", "echo")
        + &route("e2e-secret", "all", "edge", "/", "echo");
    kubernetes.apply(&yaml)?;
    let listener_says = |kind: &'static str, status: &'static str, reason: &'static str| {
        kubernetes.wait("e2e-secret", "gateway", "edge", |object| {
            let listeners = object.pointer("/status/listeners").and_then(Value::as_array).cloned().unwrap_or_default();
            let named = |name: &str| listeners.iter().position(|listener| listener.get("name") == Some(&name.into()));
            let index = named("https").ok_or("the listener has no status")?;
            has_condition(object, &format!("/status/listeners/{index}/conditions"), kind, status, reason)
        })
    };
    listener_says("ResolvedRefs", "False", "InvalidCertificateRef")?;
    listener_says("Programmed", "False", "Invalid")?;
    // The other listener serves.
    let object = kubernetes.wait("e2e-secret", "gateway", "edge", |object| {
        let address = object.pointer("/status/addresses/0/value");
        address.map(drop).ok_or_else(|| "no address yet".to_owned())
    })?;
    let address = object.pointer("/status/addresses/0/value").and_then(Value::as_str).unwrap_or_default();
    let address = std::net::SocketAddr::new(address.parse()?, 80);
    answers_status(address, "/", 200)?;

    let broken = "apiVersion: v1
kind: Secret
metadata: {name: certificate, namespace: e2e-secret}
type: kubernetes.io/tls
stringData: {tls.crt: not a certificate, tls.key: not a key}
";
    kubernetes.apply(broken)?;
    listener_says("ResolvedRefs", "False", "InvalidCertificateRef")?;
    kubernetes.kubectl(&["delete", "secret", "certificate", "--namespace", "e2e-secret"])?;
    let directory = tempdir("e2e-secret")?;
    let (key, certificate) = (directory.join("tls.key"), directory.join("tls.crt"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=example.test", "-addext", "subjectAltName=DNS:example.test"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let (key, certificate) = (format!("--key={}", key.display()), format!("--cert={}", certificate.display()));
    kubernetes.kubectl(&["create", "secret", "tls", "certificate", "--namespace", "e2e-secret", &key, &certificate])?;
    listener_says("ResolvedRefs", "True", "ResolvedRefs")?;
    listener_says("Programmed", "True", "Programmed")?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

fn tempdir(name: &str) -> Result<std::path::PathBuf> {
    let directory = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}
