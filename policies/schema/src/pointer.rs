//! JSON Pointers (RFC 6901) of bounded length, for reports.

use std::fmt::Write;

/// Bytes of the longest pointer that is reported. Its tokens may be a client's property names, which have no bound.
pub const MAX_POINTER_BYTES: usize = 512;

/// Adds one reference token.
pub(crate) fn push(pointer: &mut String, token: &str) {
    pointer.push('/');
    for character in token.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// Adds one array index.
pub(crate) fn push_index(pointer: &mut String, index: usize) {
    // Writing to a string does not fail.
    let _ = write!(pointer, "/{index}");
}

/// `pointer` followed by one token.
pub(crate) fn join(pointer: &str, token: &str) -> String {
    let mut joined = pointer.to_owned();
    push(&mut joined, token);
    joined
}

/// The longest prefix of whole tokens within [`MAX_POINTER_BYTES`]: it points to an ancestor.
pub(crate) fn bounded(mut pointer: String) -> String {
    if pointer.len() > MAX_POINTER_BYTES {
        let end = pointer.as_bytes().iter().take(MAX_POINTER_BYTES + 1).rposition(|byte| *byte == b'/');
        pointer.truncate(end.unwrap_or(0));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_escaped() {
        let mut pointer = join("", "a/b~c");
        push_index(&mut pointer, 3);
        assert_eq!(pointer, "/a~1b~0c/3");
    }

    #[test]
    fn a_long_pointer_is_cut_between_tokens() {
        let ancestor = join("", &"é".repeat(100));
        assert_eq!(bounded(join(&ancestor, &"ü".repeat(400))), ancestor);
        assert_eq!(bounded(ancestor.clone()), ancestor);
        assert_eq!(bounded(join("", &"x".repeat(600))), "");
    }
}
