//! What a proxy may ask for is decided by its token. Driven with the real binary, in pods of the test's own.

use anyhow::{Result, ensure};
use e2e_tests::clock::eventually;
use e2e_tests::gateway::{CONTROL_PLANE, SYSTEM, gateway};
use e2e_tests::kubernetes::{Kubernetes, LIMIT};

pub fn foreign_gateway(kubernetes: &Kubernetes) -> Result<()> {
    // A token of the right audience, of a ServiceAccount that no Gateway runs with.
    refused(kubernetes, "e2e-foreign", "nebula-control-plane")
}

pub fn foreign_audience(kubernetes: &Kubernetes) -> Result<()> {
    refused(kubernetes, "e2e-audience", "https://kubernetes.default.svc")
}

fn refused(kubernetes: &Kubernetes, name: &str, audience: &str) -> Result<()> {
    let namespace = kubernetes.namespace(name)?;
    namespace.serve("edge", &gateway(name, "edge", ""))?;
    let pod = format!(
        "apiVersion: v1
kind: ServiceAccount
metadata: {{name: intruder, namespace: {name}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: intruder, namespace: {name}}}
spec:
  serviceAccountName: intruder
  terminationGracePeriodSeconds: 1
  securityContext: {{sysctls: [{{name: net.ipv4.ip_unprivileged_port_start, value: \"0\"}}]}}
  containers:
  - name: gateway
    image: nebula/gateway:dev
    imagePullPolicy: IfNotPresent
    args: [--discovery, \"https://{CONTROL_PLANE}.{SYSTEM}.svc:15010\", --gateway, {name}/edge,
           --token-file, /var/run/nebula/token, --ca-file, /var/run/nebula-ca/ca.crt]
    readinessProbe: {{httpGet: {{path: /readyz, port: 15020}}, periodSeconds: 1}}
    volumeMounts:
    - {{name: token, mountPath: /var/run/nebula}}
    - {{name: ca, mountPath: /var/run/nebula-ca}}
  volumes:
  - name: token
    projected: {{sources: [{{serviceAccountToken: {{path: token, audience: \"{audience}\", expirationSeconds: 3600}}}}]}}
  - {{name: ca, configMap: {{name: nebula-ca}}}}
"
    );
    kubernetes.apply(&pod)?;
    eventually("the proxy to be refused", LIMIT, || {
        let log =
            kubernetes.kubectl(&["logs", "intruder", "--namespace", name]).map_err(|error| format!("{error:#}"))?;
        let refused = ["PermissionDenied", "PERMISSION_DENIED", "permission", "Unauthenticated", "UNAUTHENTICATED"];
        if refused.iter().any(|word| log.contains(word)) { Ok(()) } else { Err(format!("its log: {log}")) }
    })?;
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    let ready = kubernetes.kubectl(&["get", "pod", "intruder", "--namespace", name, "-o", ready])?;
    ensure!(ready == "False", "a proxy that got nothing says that it is ready");
    Ok(())
}
