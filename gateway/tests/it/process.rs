//! The process itself: ports that are taken, how it ends, and starting again.

use std::{process::Command, sync::Arc};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use kit_testing::free_port;
use nix::sys::signal::Signal;
use tokio::sync::Notify;

use crate::harness::{Client, Folder, Gateway, backend, eventually, gateway, route, says, service, spawn, try_get};

async fn one_backend() -> Folder {
    Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("r", "/", "one")),
        ("service.yaml", service("one", says("one").await)),
    ])
}

#[tokio::test]
async fn a_listeners_port_that_is_taken_gives_one_line_that_names_the_flag() {
    let folder = one_backend().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = Command::new(env!("CARGO_BIN_EXE_gateway"))
        .arg("--config")
        .arg(folder.path())
        .args(["--port-map", &format!("8080={port}"), "--log", "error"])
        .args(["--admin-address", &format!("127.0.0.1:{}", free_port())])
        .args(["--telemetry-address", &format!("127.0.0.1:{}", free_port())])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    for want in ["default/edge/http", &port.to_string(), "--port-map 8080=", "in use"] {
        assert!(text.contains(want), "no {want}: {text}");
    }
}

#[tokio::test]
async fn the_processs_own_ports_give_one_line_that_names_their_flag() {
    let folder = one_backend().await;
    for flag in ["--admin-address", "--telemetry-address"] {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = if flag == "--admin-address" { "--telemetry-address" } else { "--admin-address" };
        let output = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .arg("--config")
            .arg(folder.path())
            .args([flag, &taken.local_addr().unwrap().to_string(), other, &format!("127.0.0.1:{}", free_port())])
            .args(["--port-map", &format!("8080={}", free_port())])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.lines().count() == 1 && text.contains(flag) && text.contains("in use"), "{text}");
    }
}

#[tokio::test]
async fn a_folder_that_is_not_there_gives_one_line_that_names_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.args(["--config", "/not/there", "--admin-address", "127.0.0.1:0", "--telemetry-address", "127.0.0.1:0"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.lines().count() == 1 && text.contains("--config /not/there"), "{text}");
}

#[tokio::test]
async fn after_kill_9_it_starts_again_on_the_same_ports_at_once() {
    let folder = one_backend().await;
    let http = free_port();
    let map = format!("8080={http}");
    for _ in 0..3 {
        let (admin, telemetry) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.arg("--config").arg(folder.path()).args(["--port-map", &map]);
        command.args(["--admin-address", &format!("127.0.0.1:{admin}")]);
        command.args(["--telemetry-address", &format!("127.0.0.1:{telemetry}")]);
        let mut gateway = Gateway::spawn(command, [http, 0, admin, telemetry]);
        gateway.is_ready().await;
        // A connection that is in the middle of something.
        let mut client = Client::connect(http).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().body, "one");
        gateway.signal(Signal::SIGKILL);
        assert!(!gateway.exit().await.success());
    }
}

#[tokio::test]
async fn sigterm_fails_readiness_refuses_new_connections_and_lets_a_request_end() {
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (seen, released) = (asked.clone(), go_on.clone());
    let slow = backend(move |_| {
        let (seen, released) = (seen.clone(), released.clone());
        async move {
            seen.notify_one();
            released.notified().await;
            Response::new(Full::new(Bytes::from("at last")))
        }
    })
    .await;
    let folder = one_backend().await;
    folder.write("slow.yaml", &format!("{}---\n{}", route("slow", "/slow", "slow"), service("slow", slow)));
    let mut gateway = Gateway::ready(&folder).await;
    let (done, answer) = tokio::sync::oneshot::channel();
    let port = gateway.http;
    spawn(async move { drop(done.send(try_get(port, "/slow").await)) });
    let mut idle = Client::connect(gateway.http).await.unwrap();
    assert_eq!(idle.get("/").await.unwrap().body, "one");
    asked.notified().await;

    gateway.signal(Signal::SIGTERM);
    eventually("not ready", || async {
        (try_get(gateway.telemetry, "/readyz").await.ok()?.status == 503).then_some(())
    })
    .await;
    eventually("no new connections", || async { Client::connect(gateway.http).await.is_err().then_some(()) }).await;
    eventually("idle connections closed", || {
        let closed = idle.is_closed();
        async move { closed.then_some(()) }
    })
    .await;
    go_on.notify_one();
    let answer = answer.await.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "at last"));
    assert_eq!(gateway.exit().await.code(), Some(0));
}

/// A gateway, started with these arguments, in the middle of a request that never ends.
async fn busy_for_ever(arguments: &[&str]) -> (Gateway, Folder) {
    let never = backend(|_| async { std::future::pending::<Response<Full<Bytes>>>().await }).await;
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("r", "/", "never")),
        ("service.yaml", service("never", never)),
    ]);
    let gateway = Gateway::start_with(folder.path(), arguments);
    gateway.is_ready().await;
    let port = gateway.http;
    spawn(async move { drop(try_get(port, "/").await) });
    eventually("request is active", || async {
        let metrics = try_get(gateway.telemetry, "/metrics").await.ok()?;
        metrics.body.lines().any(|line| line.ends_with("http_requests_active 1")).then_some(())
    })
    .await;
    (gateway, folder)
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_outlive_the_drain_timeout() {
    let (mut gateway, _folder) = busy_for_ever(&["--drain-timeout", "200ms"]).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(gateway.log().contains("requests cut by the drain timeout"), "{}", gateway.log());
}

#[tokio::test]
async fn a_second_signal_ends_the_drain_at_once() {
    let (mut gateway, _folder) = busy_for_ever(&["--drain-timeout", "10m"]).await;
    gateway.signal(Signal::SIGINT);
    gateway.logged("draining").await;
    gateway.signal(Signal::SIGINT);
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn during_the_drain_delay_it_is_not_ready_but_serves_on() {
    let folder = one_backend().await;
    let mut gateway = Gateway::start_with(folder.path(), &["--drain-delay", "10m"]);
    gateway.is_ready().await;
    gateway.signal(Signal::SIGTERM);
    eventually("not ready", || async {
        (try_get(gateway.telemetry, "/readyz").await.ok()?.status == 503).then_some(())
    })
    .await;
    // A connection of its own: the ports are open still.
    assert_eq!(gateway.get("/").await.body, "one");
    // And the configuration is followed still: endpoints that go away now must get no requests.
    folder.replace("late.yaml", &route("late", "/late", "gone"));
    eventually("the change is seen", || async { (gateway.get("/late").await.status == 500).then_some(()) }).await;
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
}
