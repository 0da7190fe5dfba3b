//! Host and port of a request (RFC 3986 §3.2, narrowed to what names a server).

use std::net::Ipv6Addr;

use crate::local_reply::Reason;

/// A canonical authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Lower case, no trailing dot; IPv6 in brackets and compressed. Never empty, at most 253 bytes.
    pub host: Box<str>,
    /// 1 to 65,535.
    pub port: Option<u16>,
}

impl Authority {
    /// Parses `host`, `host:port`, `[address]` or `[address]:port`.
    ///
    /// Refused: user info, percent encodings, zones of IPv6, an empty host, label or port, port 0, and every character
    /// other than letters, digits, `-` and `_` in a label.
    ///
    /// # Errors: [`Reason::InvalidHost`].
    pub fn parse(text: &[u8]) -> Result<Self, Reason> {
        let text = std::str::from_utf8(text).map_err(|_| Reason::InvalidHost)?;
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, rest) = rest.split_once(']').ok_or(Reason::InvalidHost)?;
            let address: Ipv6Addr = address.parse().map_err(|_| Reason::InvalidHost)?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(Reason::InvalidHost)?) };
            (format!("[{address}]").into_boxed_str(), port)
        } else {
            let (host, port) = match text.split_once(':') {
                None => (text, None),
                Some((host, port)) => (host, Some(port)),
            };
            (name(host)?, port)
        };
        Ok(Self { host, port: port.map(parse_port).transpose()? })
    }
}

fn parse_port(text: &str) -> Result<u16, Reason> {
    let plain = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if plain && port != 0 => Ok(port),
        _ => Err(Reason::InvalidHost),
    }
}

fn name(text: &str) -> Result<Box<str>, Reason> {
    let text = text.strip_suffix('.').unwrap_or(text);
    // Bytes of the label so far.
    let mut label = 0;
    for byte in text.bytes() {
        match byte {
            b'.' if label > 0 => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' if label < 63 => label += 1,
            _ => return Err(Reason::InvalidHost),
        }
    }
    if text.len() <= 253 && label > 0 {
        Ok(text.to_ascii_lowercase().into_boxed_str())
    } else {
        Err(Reason::InvalidHost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_form() {
        for (text, host, port) in [
            ("Example.COM", "example.com", None),
            ("example.com.", "example.com", None),
            ("example.com.:8080", "example.com", Some(8080)),
            ("localhost:80", "localhost", Some(80)),
            ("my_service", "my_service", None),
            ("127.0.0.1:0080", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[2001:DB8:0:0:0:0:0:1]:443", "[2001:db8::1]", Some(443)),
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), Ok(Authority { host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a.".repeat(128);
        for text in [
            "",
            ".",
            "a..b",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:123456",
            "a:b",
            "u@a",
            "u:p@a",
            "a b",
            "a/b",
            "a%41",
            "a,b",
            "ä",
            "[::1",
            "[::1]x",
            "[::1%eth0]",
            "[127.0.0.1]",
            "::1",
            "a?b",
            "a#b",
            "a\\b",
            "a\0",
            &long,
            "a.b..",
        ] {
            assert_eq!(Authority::parse(text.as_bytes()), Err(Reason::InvalidHost), "{text:?}");
        }
        assert_eq!(Authority::parse(b"a\xff"), Err(Reason::InvalidHost));
    }
}
