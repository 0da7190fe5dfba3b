//! The dependency gate: licences, bans, sources and, where their database can be reached, advisories, as `deny.toml` says;
//! judged by cargo-deny.
//! cargo-deny is compiled once into the cache: 234 seconds of CPU, about two minutes on two idle cores.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::clock::Stopwatch;
use crate::settings::Settings;
use crate::shell;

/// The one place of its version.
const VERSION: &str = "0.20.2";

/// How long the advisory database may take to come, in seconds.
const FETCH_LIMIT: &str = "30";

/// # Errors: cargo-deny cannot be had, or a dependency breaks a rule; the error holds its findings.
pub fn check(settings: &Settings) -> Result<String> {
    let program = install(settings)?;
    deny(settings, &program, &["check", "licenses", "bans", "sources"])?;
    // A machine without a way out must not fail for it, nor be kept waiting; what was left out is said.
    if let Err(error) = fetch_advisories(settings, &program) {
        let reason = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        return Ok(format!(
            "licences, bans and sources; no advisories: their database could not be fetched ({reason})"
        ));
    }
    deny(settings, &program, &["--offline", "check", "advisories"])?;
    Ok("licences, bans, sources and advisories".to_owned())
}

fn deny(settings: &Settings, program: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    shell::run(command.current_dir(&settings.repository).arg("--locked").args(arguments))
}

fn fetch_advisories(settings: &Settings, program: &Path) -> Result<()> {
    let mut command = Command::new("timeout");
    command.arg(FETCH_LIMIT).arg(program).args(["--locked", "fetch", "db"]);
    shell::run(command.current_dir(&settings.repository).env("GIT_TERMINAL_PROMPT", "0"))
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
