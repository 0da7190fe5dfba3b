//! Why the gateway answers by itself: the sections of `docs/errors.md`, which is part of the binary, and the flags of
//! exchanges that broke, which no client sees as a reason.

use serde::Serialize;

const PAGE: &str = include_str!("../../../docs/errors.md");
/// What begins the advice of a section.
const ADVICE: &str = "*What to do:* ";

/// Flags of the access log that are no answers of the gateway.
const BROKEN: &[(&str, &str, &str)] = &[
    (
        "client_closed",
        "The client closed the connection before it had the whole answer; status 499 says that none had begun.",
        "Look at the client: a timeout of its own, a page that was left, a lost network.",
    ),
    (
        "response_body_error",
        "The backend broke off its answer after it had begun.",
        "Look for crashes of the backend, or for a wrong Content-Length.",
    ),
    (
        "response_body_timeout",
        "The answer had begun, then nothing of its body moved for too long, or the request's time was up.",
        "Look at the backend; if it streams, at the route's timeouts.",
    ),
];

/// The section of the flags that are no answers of the gateway.
pub const BROKEN_SECTION: &str = "Exchanges that broke";

/// What a flag means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The word.
    pub word: String,
    /// The part of the page that it stands in.
    pub section: String,
    /// What happened.
    pub meaning: String,
    /// What to do about it.
    pub advice: String,
}

/// The reason for `word`; `None` for one that this version does not know.
pub fn find(word: &str) -> Option<Reason> {
    let broken = BROKEN.iter().find(|(known, ..)| *known == word).map(|(word, meaning, advice)| Reason {
        word: (*word).to_owned(),
        section: BROKEN_SECTION.to_owned(),
        meaning: (*meaning).to_owned(),
        advice: (*advice).to_owned(),
    });
    broken.or_else(|| on_the_page(word))
}

fn on_the_page(word: &str) -> Option<Reason> {
    let mut section = "";
    let mut lines = PAGE.lines();
    loop {
        let line = lines.next()?;
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        if line.strip_prefix("### ") == Some(word) {
            break;
        }
    }
    let text = lines.take_while(|line| !line.starts_with('#')).filter(|line| !line.is_empty());
    // The first one holds the statuses.
    let (advice, meaning): (Vec<&str>, Vec<&str>) = text.skip(1).partition(|line| line.starts_with(ADVICE));
    let advice: Vec<&str> = advice.into_iter().filter_map(|line| line.strip_prefix(ADVICE)).collect();
    Some(Reason {
        word: word.to_owned(),
        section: section.to_owned(),
        meaning: without_links(&meaning.join(" ")),
        advice: without_links(&advice.join(" ")),
    })
}

/// Text without the targets of its Markdown links.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        let Some((_, after)) = after.split_once(')') else { break };
        match before.rsplit_once('[') {
            Some((before, words)) => plain.extend([before, words]),
            None => plain.push_str(before),
        }
        rest = after;
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_of_the_page_says_what_it_means_and_what_to_do() {
        let words: Vec<&str> = PAGE.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        assert!(words.len() > 40, "{words:?}");
        for word in words {
            let reason = find(word).unwrap();
            assert!(reason.meaning.ends_with(['.', ')', '`']), "{reason:?}");
            assert!(!reason.advice.is_empty() && !reason.section.is_empty(), "{reason:?}");
            assert!(!reason.meaning.contains("](") && !reason.advice.contains("]("), "{reason:?}");
        }
        assert_eq!(find("no_such_reason"), None);
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let reason = find("backend_not_found").unwrap();
        assert_eq!(reason.section, "Configuration");
        assert_eq!(reason.meaning, "The route names a Service, or a port of it, that does not exist.");
        assert_eq!(
            reason.advice,
            "See `ResolvedRefs` in the route's status. Create the Service or correct the reference."
        );
    }

    #[test]
    fn links_leave_their_words() {
        assert_eq!(without_links("a [b](c.md) d [e](f)"), "a b d e");
        assert_eq!(without_links("`tls` [x] (y)"), "`tls` [x] (y)");
    }
}
