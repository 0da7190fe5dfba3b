//! The command line: the only place that reads it.

use std::{ffi::OsString, path::Path};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::{
    explain, onboard,
    output::{self, Verdict},
    status, validate, why,
};

/// Looks at the configuration and the traffic of Nebula, and helps to write the former.
///
/// Exit code: 0 all is well, 1 something is wrong with what was looked at, 2 it could not be looked at.
#[derive(Debug, Parser)]
#[command(name = "nebulactl", version, about, max_term_width = 110, subcommand_required = true)]
#[command(arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What to do. Each command explains itself, where its arguments are.
#[derive(Debug, Subcommand)]
pub enum Command {
    Validate(validate::Arguments),
    Onboard(onboard::Arguments),
    Explain(explain::Arguments),
    Status(status::Arguments),
    Why(why::Arguments),
    /// Print the completion script of a shell: source <(nebulactl completion bash)
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How the output looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people and editors.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The process's own command line.
///
/// # Errors: what is to be printed instead of doing something: a mistake, help or the version.
pub fn parse() -> Result<Command, clap::Error> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = Arguments::command();
    if is_plugin(arguments.first()) {
        command = command.display_name("kubectl-nebula").bin_name("kubectl nebula");
    }
    let matches = command.try_get_matches_from_mut(arguments)?;
    Arguments::from_arg_matches(&matches).map(|arguments| arguments.command)
}

/// Whether kubectl called, which finds its plugins by their file names.
fn is_plugin(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_stem());
    name.is_some_and(|name| name == "kubectl-nebula" || name == "kubectl_nebula")
}

/// Prints the completion script.
pub fn completion(shell: clap_complete::Shell) -> Verdict {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "nebulactl", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    Verdict::Fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn kubectl_finds_the_plugin_by_its_name() {
        for (name, want) in [("/usr/bin/kubectl-nebula", true), ("kubectl_nebula.exe", true), ("nebulactl", false)] {
            assert_eq!(is_plugin(Some(&name.into())), want, "{name}");
        }
    }
}
