//! The command line.

use std::os::unix::fs::symlink;

use crate::harness::{Folder, run};

#[test]
fn without_a_command_it_says_what_it_can_do() {
    let ran = Folder::with([]).run(&[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("validate") && ran.stderr.contains("Usage: nebulactl"), "{ran:?}");
}

#[test]
fn as_a_plugin_it_is_called_as_kubectl_calls_it() {
    let folder = Folder::with([]);
    let plugin = folder.path().join("kubectl-nebula");
    symlink(env!("CARGO_BIN_EXE_nebulactl"), &plugin).unwrap();
    let ran = run(&plugin, folder.path(), &["validate", "--help"], "");
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("Usage: kubectl nebula validate"), "{ran:?}");
}

#[test]
fn each_command_explains_itself_in_short_and_in_full() {
    let folder = Folder::with([]);
    let short = folder.run(&["--help"]).stdout;
    for (command, in_short, in_full) in [
        ("validate", "would refuse", "With --complete the files are all that there is"),
        ("onboard", "OpenAPI document", "mode Report"),
        ("explain", "acts on a route", "merged"),
        ("status", "conditions", "kubectl get -o json"),
        ("why", "access log", "x-request-id"),
    ] {
        assert!(short.lines().any(|line| line.contains(command) && line.contains(in_short)), "{command}: {short}");
        let full = folder.run(&[command, "--help"]).stdout;
        let words = full.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(in_full) && words.contains("Exit code:"), "{command}: {full}");
    }
}

#[test]
fn completion_is_written_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = Folder::with([]).run(&["completion", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("validate"), "{ran:?}");
    }
}

#[test]
fn a_mistake_on_the_command_line_is_told_apart_from_a_mistake_in_files() {
    let ran = Folder::with([]).run(&["validate"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("--filename"), "{ran:?}");
}
