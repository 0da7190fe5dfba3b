//! Where output goes, and what a command's end means.

use std::{error::Error, io::Write as _};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Fine,
    /// Something is wrong with what was looked at.
    Problems,
    /// Some of it could not be looked at.
    Unreadable,
}

/// Why a command could not do its work.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Writes `text` to standard output. A reader that has gone away, as `head` does, is no error.
pub fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// One line on standard error, with every cause.
pub fn complain(error: &dyn Error) {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    note(&format!("nebulactl: {line}"));
}

/// A line on standard error, beside what standard output holds for programs.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// `text` with its control characters escaped.
pub fn shown(text: &str) -> String {
    let is_plain = |character: &char| !character.is_control() && !is_bidirectional(*character);
    if text.chars().all(|character| is_plain(&character)) {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(&character) {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_default());
        }
    }
    escaped
}

/// Characters that turn the direction of what follows, so that it reads as something else.
fn is_bidirectional(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_client_do_not_reach_the_terminal() {
        assert_eq!(shown("/a\u{1b}[2J\n\u{202e}b"), "/a\\u{1b}[2J\\n\\u{202e}b");
        assert_eq!(shown("/käse"), "/käse");
    }
}
