//! The grammar of a head, narrowed to what every reader reads alike (RFC 9112 §3 and §5).

use memchr::memchr;

use crate::local_reply::Reason;

/// What comes behind a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// So many bytes.
    Length(u64),
    Chunked,
    /// No telling: the request asks for another protocol.
    Switch,
}

/// What the fields say about framing.
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    /// `Upgrade` names a protocol that is not ignored.
    upgrade: bool,
    /// `Connection` has the option `upgrade`.
    may_upgrade: bool,
}

/// Checks a whole head, from its request line to its empty line. All lines end in CR LF, as the scanner has seen.
pub(super) fn check(head: &[u8], max_headers: usize) -> Result<Body, Reason> {
    let mut lines = Lines(head);
    let (method, is_http_11) = request_line(lines.next().ok_or(Reason::MalformedRequest)?)?;
    let mut framing = Framing::default();
    let mut count = 0;
    for line in lines {
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > max_headers {
            return Err(Reason::TooManyHeaders);
        }
        field(line, is_http_11, &mut framing)?;
    }
    match framing {
        Framing { length: Some(_), chunked: true, .. } => Err(Reason::ConflictingLength),
        _ if method == b"CONNECT" => Ok(Body::Switch),
        // Any other body of an upgrade is refused later on, and the connection closes.
        Framing { upgrade: true, may_upgrade: true, length: None | Some(0), chunked: false } => Ok(Body::Switch),
        Framing { chunked: true, .. } => Ok(Body::Chunked),
        Framing { length: Some(length @ 1..), .. } => Ok(Body::Length(length)),
        Framing { length: None | Some(0), .. } => Ok(Body::None),
    }
}

/// Lines without their CR LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (line, rest) = self.0.split_at_checked(memchr(b'\n', self.0)?.checked_sub(1)?)?;
        self.0 = rest.get(2..).unwrap_or_default();
        Some(line)
    }
}

/// The method, and whether it is HTTP/1.1.
fn request_line(line: &[u8]) -> Result<(&[u8], bool), Reason> {
    let is_http_11 = match line.last_chunk::<9>() {
        Some(b" HTTP/1.1") => true,
        Some(b" HTTP/1.0") => false,
        _ => return Err(Reason::MalformedRequest),
    };
    let line = line.get(..line.len() - 9).unwrap_or_default();
    let space = memchr(b' ', line).ok_or(Reason::MalformedRequest)?;
    let (method, target) = (line.get(..space).unwrap_or_default(), line.get(space + 1..).unwrap_or_default());
    if method.is_empty() || !method.iter().all(|byte| is(*byte, TOKEN)) || target.is_empty() {
        return Err(Reason::MalformedRequest);
    }
    if !target.iter().all(|byte| is(*byte, TARGET)) {
        check_target(target)?;
    }
    Ok((method, is_http_11))
}

/// A closer look at a target with unusual characters.
fn check_target(target: &[u8]) -> Result<(), Reason> {
    if target.contains(&b' ') {
        return Err(Reason::MalformedRequest);
    }
    // Servers differ on whether a fragment belongs to the path.
    if target.contains(&b'#') {
        return Err(Reason::InvalidTarget);
    }
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if path.contains(&b'\\') {
        return Err(Reason::AmbiguousPath);
    }
    match http::Uri::try_from(target) {
        Ok(_) => Ok(()),
        Err(_) if target.starts_with(b"/") => Err(Reason::InvalidPath),
        Err(_) => Err(Reason::InvalidTarget),
    }
}

fn field(line: &[u8], is_http_11: bool, framing: &mut Framing) -> Result<(), Reason> {
    let colon = memchr(b':', line).ok_or(Reason::InvalidHeader)?;
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    // No space before the colon, and no folded line: a space is no token.
    let name_is_valid = !name.is_empty() && name.iter().all(|byte| is(*byte, TOKEN));
    if !name_is_valid || !value.iter().all(|byte| is(*byte, VALUE)) {
        return Err(if value.contains(&b'\r') { Reason::InvalidLineEnd } else { Reason::InvalidHeader });
    }
    let value = value.trim_ascii();
    match name.len() {
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).filter(|_| digits);
            if length.is_none() || framing.length.is_some() {
                return Err(Reason::InvalidContentLength);
            }
            framing.length = length;
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            if !is_http_11 || framing.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Reason::InvalidTransferEncoding);
            }
            framing.chunked = true;
        }
        // The one upgrade that is ignored (RFC 9113 withdrew it), so that HTTP/1.1 goes on.
        7 if name.eq_ignore_ascii_case(b"upgrade") && !value.eq_ignore_ascii_case(b"h2c") => {
            framing.upgrade = is_http_11;
        }
        10 if name.eq_ignore_ascii_case(b"connection") => {
            let mut options = value.split(|byte| *byte == b',');
            framing.may_upgrade |= options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        }
        _ => {}
    }
    Ok(())
}

/// Bits of [`CLASSES`].
const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;

fn is(byte: u8, class: u8) -> bool {
    CLASSES.get(usize::from(byte)).is_some_and(|classes| classes & class != 0)
}

/// Which bytes a token (RFC 9110 §5.6.2) and a field's value (§5.5) have, and which a common target.
static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "the index is below 256, and it is computed when compiling")]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let character = byte as u8;
        let mut class = 0;
        if character.is_ascii_alphanumeric()
            || matches!(character, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_')
            || matches!(character, b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        if matches!(character, b'\t' | b' '..=b'~' | 0x80..) {
            class |= VALUE;
        }
        if character.is_ascii_alphanumeric()
            || matches!(character, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+')
            || matches!(character, b',' | b';' | b'=' | b'@' | b'/' | b'%' | b'?')
        {
            class |= TARGET;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}
