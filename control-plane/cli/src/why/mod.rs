//! `why`: what the gateway decided about a request, from its line in the access log.
//!
//! Invariant: lines are read one at a time and bounded, so that a log of any length, or one that never ends, can be piped
//! in. Texts of clients go through [`output::shown`]: a log must not drive a terminal.

mod line;
mod story;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::PathBuf,
};

use clap::Args;

use crate::{
    arguments::Format,
    output::{self, Failure, Verdict},
};
use line::Line;
use story::Story;

/// No line of the access log is longer; one that is, is passed over.
const LINE_LIMIT: u64 = 64 << 10;

/// Tell what the gateway decided about a request, from its access log
///
/// Reads lines of the gateway's access log (JSON, one a line; other lines are passed over, and so is what stands before the
/// JSON, as `kubectl logs --prefix` writes it) and tells what was decided about a request, in order: what it was read as,
/// listener, route, rule, backend, endpoint, attempts, answer. Where the gateway refused, it says at which step, why, and
/// what to do next.
///
/// The id is in the response's header x-request-id.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 told, 1 no line matches, 2 the log cannot be read.\n\n\
    Examples:\n  kubectl logs -n infra deploy/edge-nebula | nebulactl why --request-id 47d945c1-3fa1-4501-9de2-9a3944144450\n  \
    nebulactl why --failed access.log")]
pub struct Arguments {
    /// The log; standard input where it is absent or -
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Tell of this request alone
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    /// Tell only of requests that the gateway answered itself, that broke, or that got a status from 500 on
    #[arg(long)]
    failed: bool,

    /// How the output looks; json is one object a request, each on a line
    #[arg(short = 'o', long = "output", value_enum, default_value_t)]
    output: Format,
}

/// The log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}")]
struct Unreadable {
    file: String,
    #[source]
    source: io::Error,
}

/// Tells of each request that is asked for, as its line comes.
///
/// # Errors: the log cannot be read.
pub fn run(arguments: &Arguments) -> Result<Verdict, Failure> {
    let file = arguments.file.as_ref().filter(|path| path.as_os_str() != "-");
    let name = file.map_or_else(|| "<stdin>".to_owned(), |path| path.display().to_string());
    let unreadable = |source| Unreadable { file: name.clone(), source };
    let mut input: Box<dyn BufRead> = match file {
        Some(path) => Box::new(BufReader::new(File::open(path).map_err(unreadable)?)),
        None => Box::new(io::stdin().lock()),
    };
    let mut told = 0_u64;
    while let Some(text) = next_line(&mut *input).map_err(unreadable)? {
        let Some(line) = Line::parse(&text).filter(|line| arguments.wants(line)) else { continue };
        let story = Story::of(&line);
        let text = match arguments.output {
            Format::Text => story.text(),
            Format::Json => format!("{}\n", serde_json::to_string(&story)?),
        };
        let separator = if told > 0 && arguments.output == Format::Text { "\n" } else { "" };
        output::print(&format!("{separator}{text}"));
        told += 1;
    }
    if told > 0 {
        return Ok(Verdict::Fine);
    }
    output::note(&match &arguments.request_id {
        Some(id) => format!("nebulactl: no line of {name} is of request {}", output::shown(id)),
        None => format!("nebulactl: no line of {name} is to be told"),
    });
    Ok(Verdict::Problems)
}

impl Arguments {
    fn wants(&self, line: &Line) -> bool {
        let is_the_one = self.request_id.as_ref().is_none_or(|id| *id == line.request_id);
        is_the_one && (!self.failed || line.flag.is_some() || line.status >= 500)
    }
}

/// The next line without its end; the rest of one that is too long is read and left out.
fn next_line(input: &mut dyn BufRead) -> io::Result<Option<String>> {
    loop {
        let mut bytes = Vec::new();
        input.take(LINE_LIMIT).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.last() == Some(&b'\n') || u64::try_from(bytes.len()).unwrap_or(u64::MAX) < LINE_LIMIT {
            return Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()));
        }
        input.skip_until(b'\n')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let log = format!("a\n{}\nb\nc", "x".repeat(200_000));
        let mut input = log.as_bytes();
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["a", "b", "c"]);
    }
}
