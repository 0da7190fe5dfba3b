//! The dependency gate: licences, bans and sources as `deny.toml` says, judged by cargo-deny.
//! cargo-deny is compiled once into the cache: 234 seconds of CPU, about two minutes on two idle cores.

use std::process::Command;

use anyhow::{Context, Result};

use crate::clock::Stopwatch;
use crate::settings::Settings;
use crate::shell;

/// The one place of its version.
const VERSION: &str = "0.20.2";

/// # Errors: cargo-deny cannot be had, or a dependency breaks a rule; the error holds its findings.
pub fn check(settings: &Settings) -> Result<String> {
    let program = install(settings)?;
    let mut command = Command::new(program);
    command.current_dir(&settings.repository).args(["--locked", "check", "licenses", "bans", "sources"]);
    shell::run(&mut command)?;
    Ok("licences, bans and sources; no advisories (no database can be reached)".to_owned())
}

fn install(settings: &Settings) -> Result<std::path::PathBuf> {
    let root = settings.cache.join("artifacts").join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if program.exists() {
        return Ok(program);
    }
    println!("building cargo-deny {VERSION} (kept in {})", root.display());
    let watch = Stopwatch::start();
    std::fs::create_dir_all(&root)?;
    let build = root.join("build");
    let mut command = Command::new("cargo");
    command.args(["install", "cargo-deny", "--locked", "--version", VERSION, "--root"]).arg(&root);
    // Its own output directory, so that the workspace's is not locked meanwhile.
    command.arg("--target-dir").arg(&build);
    shell::logged(&mut command, &root.join("build.log")).context("build cargo-deny")?;
    std::fs::remove_dir_all(&build)?;
    println!("built cargo-deny in {watch}");
    Ok(program)
}
