//! A run of several steps: each is named, timed and logged; the end is one table.
//! Invariant: a failed step never hides another, and the run fails if one of its steps did.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::clock::Stopwatch;
use crate::settings::Settings;
use crate::shell;

/// Steps in the order they ran.
pub struct Steps {
    watch: Stopwatch,
    logs: PathBuf,
    done: Vec<Step>,
}

struct Step {
    name: String,
    took: String,
    passed: bool,
    note: String,
}

impl Steps {
    /// Starts the clock of the whole run.
    pub fn new(settings: &Settings) -> Self {
        Self { watch: Stopwatch::start(), logs: settings.target.join("xtask/logs"), done: Vec::new() }
    }

    /// Runs one step, which gets the path of its log and answers a note for the table. Says whether it passed.
    pub fn step(&mut self, name: &str, work: impl FnOnce(&Path) -> Result<String>) -> bool {
        println!("== {name}");
        let watch = Stopwatch::start();
        let result = work(&self.logs.join(format!("{}.log", name.replace(' ', "-"))));
        let took = watch.to_string();
        let (passed, note) = match result {
            Ok(note) => (true, note),
            Err(error) => {
                println!("{error:#}");
                (false, String::new())
            }
        };
        println!("== {name}: {} after {took}{}", if passed { "ok" } else { "FAILED" }, dash(&note));
        self.done.push(Step { name: name.to_owned(), took, passed, note });
        passed
    }

    /// A step that is one command, its output in the log.
    pub fn command(&mut self, name: &str, command: &mut Command) -> bool {
        self.step(name, |log| shell::logged(command, log).map(|()| String::new()))
    }

    /// A step that is one `cargo test`; the note counts its tests.
    pub fn tests(&mut self, name: &str, command: &mut Command) -> bool {
        self.step(name, |log| {
            let result = shell::logged(command, log);
            let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
            for line in text.lines().filter(|line| line.starts_with("skipped ")) {
                println!("{line}");
            }
            result.map(|()| counted(&text))
        })
    }

    /// Notes a step that could not run because one it needs failed.
    pub fn left_out(&mut self, name: &str, because: &str) {
        println!("== {name}: not run, {because}");
        self.done.push(Step { name: name.to_owned(), took: "-".to_owned(), passed: false, note: because.to_owned() });
    }

    /// Prints the table.
    ///
    /// # Errors: a step failed or could not run.
    pub fn finish(self) -> Result<()> {
        println!("\n{:<28} {:>9}  result", "step", "time");
        for step in &self.done {
            let verdict = if step.passed { "ok" } else { "FAILED" };
            println!("{:<28} {:>9}  {verdict}{}", step.name, step.took, dash(&step.note));
        }
        let failed: Vec<&str> = self.done.iter().filter(|step| !step.passed).map(|step| step.name.as_str()).collect();
        println!("{:<28} {:>9}", "in all", self.watch.to_string());
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        println!("all {} steps passed", self.done.len());
        Ok(())
    }
}

fn dash(note: &str) -> String {
    if note.is_empty() { String::new() } else { format!(" - {note}") }
}

/// Adds up the lines `test result: ok. 3 passed; 0 failed; 1 ignored; …` of one or more test programs.
fn counted(output: &str) -> String {
    let mut sums = [0_usize; 3];
    for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        for part in line.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(word)) = (words.next().map(str::parse::<usize>), words.next()) else {
                continue;
            };
            for (sum, name) in sums.iter_mut().zip(["passed", "failed", "ignored"]) {
                if word == name {
                    *sum += number;
                }
            }
        }
    }
    let [passed, failed, ignored] = sums;
    format!("{passed} passed, {failed} failed, {ignored} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_all_programs_are_added() {
        let output = "running 2 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.01s
";
        assert_eq!(counted(output), "5 passed, 1 failed, 1 skipped");
    }
}
