//! The canonical path: unreserved characters plain, everything else percent-encoded in upper case, no empty and no dot
//! segments. A path that two servers may read differently has no canonical form and is refused.

use std::borrow::Cow;

use crate::local_reply::Reason;

/// Brings a path into canonical form; borrows where it already is.
///
/// # Errors: [`Reason::InvalidPath`], [`Reason::AmbiguousPath`] or [`Reason::PathAboveRoot`], as `docs/strictness.md` says.
pub fn canonical_path(path: &str) -> Result<Cow<'_, str>, Reason> {
    if !path.starts_with('/') {
        return Err(Reason::InvalidPath);
    }
    if is_canonical(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    resolve(&decode(path.as_bytes())?).map(Cow::Owned)
}

/// Whether nothing needs a closer look. May say no for a path that is canonical, never the other way round.
fn is_canonical(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'/' | b'.' if after_slash => return false,
            _ if !is_plain(*byte) => return false,
            _ => after_slash = *byte == b'/',
        }
    }
    true
}

/// Characters that stand for themselves in a path: `pchar` of RFC 3986 §3.3 but `%`, and `/`.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Decodes unreserved characters, encodes what must be, writes encodings in upper case.
fn decode(path: &[u8]) -> Result<String, Reason> {
    let mut decoded = String::with_capacity(path.len() + 8);
    let mut rest = path;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'%' => {
                let (value, behind) = hex_pair(rest).ok_or(Reason::InvalidPath)?;
                rest = behind;
                match value {
                    // `/` and `\`: some servers decode before they split. NUL: some cut there.
                    b'/' | b'\\' | 0 => return Err(Reason::AmbiguousPath),
                    1..=0x1f | 0x7f => return Err(Reason::InvalidPath),
                    b'%' if hides_structure(rest) => return Err(Reason::AmbiguousPath),
                    _ if is_unreserved(value) => decoded.push(char::from(value)),
                    _ => push_encoded(&mut decoded, value),
                }
            }
            b'\\' => return Err(Reason::AmbiguousPath),
            // RFC 3986 does not allow these as they are; clients send them, and they have one meaning.
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | b'[' | b']' => push_encoded(&mut decoded, *byte),
            byte if is_plain(*byte) => decoded.push(char::from(*byte)),
            _ => return Err(Reason::InvalidPath),
        }
    }
    Ok(decoded)
}

/// Whether the text behind `%25` would, decoded once more, be a separator, a dot, NUL or a percent sign.
fn hides_structure(rest: &[u8]) -> bool {
    matches!(hex_pair(rest), Some((b'/' | b'\\' | b'.' | b'%' | 0, _)))
}

fn hex_pair(text: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = text else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(high)? << 4 | digit(low)?, rest))
}

fn push_encoded(text: &mut String, byte: u8) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    text.push('%');
    for nibble in [byte >> 4, byte & 15] {
        text.extend(DIGITS.get(usize::from(nibble)));
    }
}

/// Resolves dot segments (RFC 3986 §5.2.4) and merges empty ones.
fn resolve(path: &str) -> Result<String, Reason> {
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = true;
    for segment in path.split('/') {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop().ok_or(Reason::PathAboveRoot)?),
            // Servers that know path parameters take `..;x` for `..`, others do not.
            _ if is_dots_with_parameters(segment) => return Err(Reason::AmbiguousPath),
            _ => segments.push(segment),
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &segments {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if directory {
        resolved.push('/');
    }
    Ok(resolved)
}

fn is_dots_with_parameters(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or_default();
    let name = name.split("%3B").next().unwrap_or_default();
    name.len() < segment.len() && matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_paths_have_one_form() {
        for (path, canonical) in [
            ("/", "/"),
            ("/a/b.c/-_~!$&'()*+,;=:@", "/a/b.c/-_~!$&'()*+,;=:@"),
            ("/%61%2Db%7e", "/a-b~"),
            ("/a%c3%a4", "/a%C3%A4"),
            ("/a%3fb%23", "/a%3Fb%23"),
            ("//a///b//", "/a/b/"),
            ("/./a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.../b", "/a/.../b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/{a}|<b>\"^`[]", "/%7Ba%7D%7C%3Cb%3E%22%5E%60%5B%5D"),
            ("/100%25", "/100%25"),
            ("/%2541", "/%2541"),
            ("/a%20b", "/a%20b"),
        ] {
            assert_eq!(canonical_path(path).as_deref(), Ok(canonical), "{path}");
        }
    }

    #[test]
    fn a_path_without_one_meaning_is_refused() {
        for (path, reason) in [
            ("", Reason::InvalidPath),
            ("a", Reason::InvalidPath),
            ("*", Reason::InvalidPath),
            ("/%", Reason::InvalidPath),
            ("/%4", Reason::InvalidPath),
            ("/%zz", Reason::InvalidPath),
            ("/%+1", Reason::InvalidPath),
            ("/ä", Reason::InvalidPath),
            ("/a b", Reason::InvalidPath),
            ("/a%0d%0ab", Reason::InvalidPath),
            ("/a%7f", Reason::InvalidPath),
            ("/a#b", Reason::InvalidPath),
            ("/a%2fb", Reason::AmbiguousPath),
            ("/a%5Cb", Reason::AmbiguousPath),
            ("/a\\b", Reason::AmbiguousPath),
            ("/a%00", Reason::AmbiguousPath),
            ("/a%252fb", Reason::AmbiguousPath),
            ("/%252e%252e/", Reason::AmbiguousPath),
            ("/%2500", Reason::AmbiguousPath),
            ("/%25252e", Reason::AmbiguousPath),
            ("/a/..;/b", Reason::AmbiguousPath),
            ("/a/..;x=1/b", Reason::AmbiguousPath),
            ("/a/.;/b", Reason::AmbiguousPath),
            ("/a/%2e%2e;/b", Reason::AmbiguousPath),
            ("/a/..%3b/b", Reason::AmbiguousPath),
            ("/..", Reason::PathAboveRoot),
            ("/a/../../b", Reason::PathAboveRoot),
            ("/%2e%2e/a", Reason::PathAboveRoot),
        ] {
            assert_eq!(canonical_path(path), Err(reason), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(path in "/([a-c.;%/]|%2[0-9a-fA-F]|%4[0-9]|\\.\\.){0,12}") {
            if let Ok(canonical) = canonical_path(&path) {
                prop_assert_eq!(canonical_path(&canonical), Ok(canonical.clone()));
                prop_assert!(!canonical.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(!canonical.contains("//"));
            }
        }
    }
}
