//! Where one request ends and the next begins.

use memchr::memchr;

use super::{
    chunked::{Chunked, Progress},
    head::{self, Body},
};
use crate::{limits::Limits, local_reply::Reason};

/// Follows a connection from head to head.
#[derive(Debug)]
pub(super) struct Scanner {
    max_head_bytes: usize,
    max_uri_bytes: usize,
    max_headers: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Within a head, of which `seen` bytes have no end in them.
    Head { seen: usize, empty_line: bool },
    /// Within a body, with so many bytes to come.
    Length(u64),
    /// Within a chunked body.
    Chunked(Chunked),
}

/// What follows the bytes that may pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing, or the beginning of a head, which is to be fed again with more behind it.
    More,
    /// Anything: the request asks for another protocol.
    Switch,
    /// A chunk that is none.
    Broken,
    /// A head that must not pass.
    Refused(Reason),
}

impl Scanner {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            max_head_bytes: limits.max_head_bytes,
            max_uri_bytes: limits.max_uri_bytes,
            max_headers: limits.max_headers,
            state: State::Head { seen: 0, empty_line: false },
        }
    }

    /// Scans `bytes`, which follow those that passed before, and tells how many of them may pass.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> (usize, Outcome) {
        let mut passed = 0;
        while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty()) {
            match &mut self.state {
                State::Length(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= count as u64;
                    passed += count;
                    if *left == 0 {
                        self.state = State::Head { seen: 0, empty_line: false };
                    }
                }
                State::Chunked(chunked) => match chunked.feed(rest) {
                    Progress::More => return (bytes.len(), Outcome::More),
                    Progress::Done(count) => {
                        passed += count;
                        self.state = State::Head { seen: 0, empty_line: false };
                    }
                    Progress::Broken => return (passed, Outcome::Broken),
                },
                State::Head { seen, empty_line } => {
                    // One empty line before a request is what old clients sent behind a POST (RFC 9112 §2.2).
                    if !*empty_line && *seen < 2 && rest.starts_with(b"\r\n") {
                        (*empty_line, *seen) = (true, 0);
                        passed += 2;
                        continue;
                    }
                    let end = match end_of_head(rest, *seen) {
                        Ok(Some(end)) if end <= self.max_head_bytes => end,
                        Ok(None) if rest.len() <= self.max_head_bytes => {
                            *seen = rest.len();
                            return (passed, Outcome::More);
                        }
                        Ok(_) => return (passed, Outcome::Refused(self.too_large(rest))),
                        Err(reason) => return (passed, Outcome::Refused(reason)),
                    };
                    let head = rest.get(..end).unwrap_or_default();
                    passed += match head::check(head, self.max_headers) {
                        Ok(Body::None) => end,
                        Ok(Body::Length(length)) => {
                            self.state = State::Length(length);
                            passed += end;
                            continue;
                        }
                        Ok(Body::Chunked) => {
                            self.state = State::Chunked(Chunked::default());
                            passed += end;
                            continue;
                        }
                        Ok(Body::Switch) => {
                            self.state = State::Head { seen: 0, empty_line: false };
                            return (passed + end, Outcome::Switch);
                        }
                        Err(reason) => return (passed, Outcome::Refused(reason)),
                    };
                    self.state = State::Head { seen: 0, empty_line: false };
                }
            }
        }
        (passed, Outcome::More)
    }

    fn too_large(&self, head: &[u8]) -> Reason {
        match memchr(b'\n', head) {
            Some(end) if end <= self.max_uri_bytes + 1024 => Reason::HeadersTooLarge,
            _ => Reason::UriTooLong,
        }
    }
}

/// The length of the head with its empty line, once that is there. No line break before `seen` ends it.
fn end_of_head(bytes: &[u8], seen: usize) -> Result<Option<usize>, Reason> {
    // The last three bytes seen may begin the end.
    let mut from = seen.saturating_sub(3);
    while let Some(at) = bytes.get(from..).and_then(|rest| memchr(b'\n', rest)) {
        let line_end = from + at;
        if line_end.checked_sub(1).and_then(|before| bytes.get(before)) != Some(&b'\r') {
            return Err(Reason::InvalidLineEnd);
        }
        match (bytes.get(line_end + 1), bytes.get(line_end + 2)) {
            (Some(b'\r'), Some(b'\n')) => return Ok(Some(line_end + 3)),
            (Some(b'\n'), _) => return Err(Reason::InvalidLineEnd),
            _ if line_end == 1 => return Err(Reason::MalformedRequest),
            _ => from = line_end + 1,
        }
    }
    Ok(None)
}
