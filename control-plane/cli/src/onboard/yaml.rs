//! Texts in YAML.

use serde_json::Value;

/// `text` in double quotes. YAML's are those of JSON, but for two line ends that JSON leaves as they are.
pub fn quoted(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029").replace('\u{85}', "\\u0085")
}

/// `text` for a comment: on one line, however it was written.
pub fn comment(text: &str) -> String {
    let is_end = |character: char| character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
    text.split(is_end).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_leave_its_quotes_or_its_comment() {
        for text in ["a\"\nb: c", "\u{2028}x: y", "\u{85}", "\\", "yes", "{}"] {
            let parsed = control_plane_files::parse(&format!("k: {}\n", quoted(text))).unwrap();
            assert_eq!(parsed[0].get("k").and_then(control_plane_files::Node::as_text), Some(text));
            assert_eq!(comment(text).lines().count().max(1), 1);
            let commented = control_plane_files::parse(&format!("a: 1 # {}\n", comment(text))).unwrap();
            assert_eq!(commented.len(), 1);
        }
    }
}
