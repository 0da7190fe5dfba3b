//! Traffic that goes on while something it does not need goes away, and while what it needs is replaced.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e_tests::clock::eventually;
use e2e_tests::gateway::{CONTROL_PLANE, SYSTEM, answers_status, route, serving, steadily};
use e2e_tests::kubernetes::{Kubernetes, LIMIT, Stopped};
use e2e_tests::load::Load;

pub fn control_plane_away(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-away")?;
    let address = serving(kubernetes, &namespace)?;
    let replicas = kubernetes.kubectl(&[
        "get",
        "deployment",
        CONTROL_PLANE,
        "--namespace",
        SYSTEM,
        "-o",
        "jsonpath={.spec.replicas}",
    ])?;
    let load = Load::start(address, "example.test", "/");
    scale(kubernetes, "0")?;
    eventually("the control plane to go", LIMIT, || {
        let selector = "app.kubernetes.io/component=control-plane";
        let pods = kubernetes.list(SYSTEM, "pod", selector).map_err(|error| format!("{error:#}"))?;
        if pods.is_empty() { Ok(()) } else { Err(format!("{} pods left", pods.len())) }
    })?;
    // Accepted by the API server, and unknown to the proxy until somebody tells it.
    kubernetes.apply(&route("e2e-away", "later", "edge", "/later", "nothing"))?;
    enough(&load)?;
    answers_status(address, "/later", 200)?;
    scale(kubernetes, &replicas)?;
    kubernetes.rolled_out(SYSTEM, CONTROL_PLANE)?;
    answers_status(address, "/later", 500)?;
    load.stop(500)
}

pub fn api_server_hangs(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-api")?;
    let address = serving(kubernetes, &namespace)?;
    let restarts = || {
        let path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        let selector = "--selector=app.kubernetes.io/component=control-plane";
        kubernetes.kubectl(&["get", "pods", "--namespace", SYSTEM, selector, "-o", path])
    };
    let before = restarts()?;
    let load = Load::start(address, "example.test", "/");
    let stopped = Stopped::api_server(kubernetes)?;
    // The outage has a length: longer than a Lease's life (15 s) and than the timeout of a request.
    for _ in 0..20 {
        enough(&load)?;
        steadily(address, "/", 200)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    drop(stopped);
    kubernetes.apply(&route("e2e-api", "later", "edge", "/later", "nothing"))?;
    namespace.route_condition("later", "ResolvedRefs", "False", "BackendNotFound")?;
    answers_status(address, "/later", 500)?;
    load.stop(500)?;
    ensure!(before == restarts()?, "replicas of the control plane were restarted");
    Ok(())
}

pub fn proxy_rollout(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-rollout")?;
    let address = serving(kubernetes, &namespace)?;
    let proxy = namespace.proxy("edge")?;
    let load = Load::start(address, "example.test", "/");
    enough(&load)?;
    for _ in 0..2 {
        kubernetes.kubectl(&["rollout", "restart", &format!("deployment/{proxy}"), "--namespace", "e2e-rollout"])?;
        kubernetes.rolled_out("e2e-rollout", &proxy)?;
    }
    enough(&load)?;
    load.stop(500)
}

/// Waits for another hundred requests.
pub fn enough(load: &Load) -> Result<()> {
    let target = load.sent() + 100;
    eventually("a hundred more requests", Duration::from_secs(30), || {
        if load.sent() >= target { Ok(()) } else { Err(format!("{} of {target}", load.sent())) }
    })
}

fn scale(kubernetes: &Kubernetes, replicas: &str) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    kubernetes.kubectl(&["scale", "deployment", CONTROL_PLANE, "--namespace", SYSTEM, &replicas]).map(drop)
}
