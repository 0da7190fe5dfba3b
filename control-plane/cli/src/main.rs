//! `nebulactl`: looks at configuration and traffic of Nebula from the outside, and writes nothing but text.
//!
//! Owns commands and their output. What a resource means is the translator's; what a request meets is the gateway's.
//! Invariants: no Kubernetes client and no proxy engine is linked; no output holds a Secret's value; the exit code is 0 for
//! all is well, 1 for something is wrong with what was looked at, 2 for it could not be looked at.

mod admin;
mod arguments;
mod configuration;
mod explain;
mod onboard;
mod output;
mod reasons;
mod source;
mod stand_ins;
mod status;
mod validate;
mod why;

use std::process::ExitCode;

use arguments::Command;
use output::Verdict;

fn main() -> ExitCode {
    let command = match arguments::parse() {
        Ok(command) => command,
        Err(error) => {
            // A closed standard output is no reason to fail.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let outcome = match command {
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Onboard(arguments) => onboard::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Why(arguments) => why::run(&arguments),
        Command::Completion { shell } => Ok(arguments::completion(shell)),
    };
    match outcome {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Problems) => ExitCode::FAILURE,
        Ok(Verdict::Unreadable) => ExitCode::from(2),
        Err(error) => {
            output::complain(&*error);
            ExitCode::from(2)
        }
    }
}
