//! Running other programs. A failure always says which command it was and what it printed last.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Lines of a log shown when its command fails.
const TAIL: usize = 40;

/// Runs to the end with output captured; nothing is shown unless it fails.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs to the end and answers what it printed to standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let line = describe(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {line}"))?;
    finish(&line, output)
}

/// As [`output`], with `input` on standard input.
pub fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    let line = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading says why by its exit status.
        let _ = stdin.write_all(input.as_bytes());
    }
    finish(&line, child.wait_with_output()?)
}

/// Runs to the end with all output in `log`, whose last lines become part of the error.
pub fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let line = describe(command);
    if let Some(directory) = log.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("start {line}"))?;
    if !status.success() {
        bail!("{line}: {status}\n{}\n(whole log: {})", tail_of(log), log.display());
    }
    Ok(())
}

/// The last lines of a log, or why it cannot be read.
pub fn tail_of(log: &Path) -> String {
    match std::fs::read(log) {
        Ok(bytes) => tail(&String::from_utf8_lossy(&bytes), TAIL),
        Err(error) => format!("{}: {error}", log.display()),
    }
}

/// Where the program of that name lies on PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let found = output(Command::new("sh").args(["-c", "command -v \"$0\"", name])).ok()?;
    Some(PathBuf::from(found.trim()))
}

/// The command line as a person would type it, shortened.
pub fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args().map(OsStr::to_string_lossy) {
        if line.len() > 300 {
            line.push_str(" …");
            break;
        }
        line.push(' ');
        line.push_str(&argument);
    }
    line
}

fn finish(line: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        bail!("{line}: {}\n{}", output.status, tail(&printed, TAIL));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{line}: output is not UTF-8"))
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
