//! The process itself: how it ends when it cannot start.

use std::{net::TcpListener, path::PathBuf, process::Command};

/// Names an API server that is not there: the ports come first.
fn kubeconfig() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("control-plane-kubeconfig.yaml");
    let text = "{apiVersion: v1, kind: Config, current-context: none, users: [{name: none, user: {}}], \
        clusters: [{name: none, cluster: {server: 'http://127.0.0.1:1'}}], \
        contexts: [{name: none, context: {cluster: none, user: none}}]}";
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_port_that_is_taken_ends_the_process_with_one_line_that_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ports = ["--discovery-address", "--telemetry-address"];
    for flag in ports {
        let mut command = Command::new(env!("CARGO_BIN_EXE_control-plane"));
        command.env("KUBECONFIG", kubeconfig());
        for port in ports {
            command.args([port, if port == flag { &address } else { "127.0.0.1:0" }]);
        }
        let ended = command.output().unwrap();
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(flag) && text.contains(&address) && text.contains("in use"), "{text}");
    }
}
