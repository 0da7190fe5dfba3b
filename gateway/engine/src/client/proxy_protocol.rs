//! The PROXY protocol, versions 1 and 2: how a load balancer that passes bytes on tells whose they are.
//! Source: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>.
//!
//! Invariants: not a byte behind the header is read; a header is bounded, and whatever is not exactly one ends the connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What version 2 begins with (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, its line end included (§2.1).
const MAX_LINE: usize = 107;
/// The longest rest of a header of version 2. Addresses take 36 bytes, extensions of common load balancers a few hundred.
const MAX_REST: usize = 4096;

/// A connection that does not begin as it must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidHeader {
    /// It ended or broke.
    #[error("the connection ended before its PROXY header did")]
    Ended(#[from] io::Error),
    /// Neither version.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// A header that is not well-formed.
    #[error("malformed PROXY header: {0}")]
    Malformed(&'static str),
}

/// Reads the header; the client that it tells, or `None` where the load balancer speaks for itself.
///
/// The caller bounds the time.
///
/// # Errors: [`InvalidHeader`], after which nothing may be read any more.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, InvalidHeader> {
    // The shortest header, `PROXY UNKNOWN\r\n`, is longer than this.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        return read_binary(stream).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(InvalidHeader::Missing);
    }
    let mut line = start.to_vec();
    // Byte by byte, as what follows is not ours to read.
    while !line.ends_with(b"\n") {
        if line.len() == MAX_LINE {
            return Err(InvalidHeader::Malformed("longer than 107 bytes"));
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line)
}

fn parse_line(line: &[u8]) -> Result<Option<SocketAddr>, InvalidHeader> {
    let line = line.strip_suffix(b"\r\n").and_then(|line| str::from_utf8(line).ok());
    let line = line.ok_or(InvalidHeader::Malformed("not one line of text that ends with CR LF"))?;
    let parts: Vec<&str> = line.split(' ').collect();
    match parts.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", "TCP4", source, destination, source_port, destination_port] => {
            let (source, _) = (address::<Ipv4Addr>(source)?, address::<Ipv4Addr>(destination)?);
            let (port, _) = (port(source_port)?, port(destination_port)?);
            Ok(Some(SocketAddr::new(source.into(), port)))
        }
        ["PROXY", "TCP6", source, destination, source_port, destination_port] => {
            let (source, _) = (address::<Ipv6Addr>(source)?, address::<Ipv6Addr>(destination)?);
            let (port, _) = (port(source_port)?, port(destination_port)?);
            Ok(Some(SocketAddr::new(IpAddr::V6(source).to_canonical(), port)))
        }
        _ => Err(InvalidHeader::Malformed("not TCP4, TCP6 or UNKNOWN with two addresses and two ports")),
    }
}

fn address<A: std::str::FromStr>(text: &str) -> Result<A, InvalidHeader> {
    text.parse().map_err(|_| InvalidHeader::Malformed("not an address of the family that it names"))
}

fn port(text: &str) -> Result<u16, InvalidHeader> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(InvalidHeader::Malformed("not a port"))
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, InvalidHeader> {
    let [version_and_command, family, high, low] = {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await?;
        bytes
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REST {
        return Err(InvalidHeader::Malformed("longer than 4096 bytes"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    match (version_and_command, family) {
        // LOCAL, a health check of the load balancer's own; or a family that it does not tell.
        (0x20, _) | (0x21, 0x00) => Ok(None),
        (0x21, 0x11) => {
            let (source, port) = source::<4>(&rest)?;
            Ok(Some(SocketAddr::new(Ipv4Addr::from(source).into(), port)))
        }
        (0x21, 0x21) => {
            let (source, port) = source::<16>(&rest)?;
            Ok(Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(source)).to_canonical(), port)))
        }
        (0x21, _) => Err(InvalidHeader::Malformed("not TCP over IPv4 or IPv6")),
        _ => Err(InvalidHeader::Malformed("an unknown version or command")),
    }
}

/// The source's address of `N` bytes and its port; the extensions behind must be well-formed (§2.2.7).
fn source<const N: usize>(rest: &[u8]) -> Result<([u8; N], u16), InvalidHeader> {
    let short = || InvalidHeader::Malformed("shorter than its addresses");
    let (source, rest) = rest.split_first_chunk::<N>().ok_or_else(short)?;
    let (_destination, rest) = rest.split_first_chunk::<N>().ok_or_else(short)?;
    let (source_port, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (_destination_port, mut rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    while let Some(([_kind, high, low], tail)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        rest = tail.get(length..).ok_or(InvalidHeader::Malformed("an extension is longer than the header"))?;
    }
    if rest.is_empty() {
        Ok((*source, u16::from_be_bytes(*source_port)))
    } else {
        Err(InvalidHeader::Malformed("an extension is cut short"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is read of `bytes`, and what is left.
    async fn parse(bytes: &[u8]) -> (Result<Option<String>, String>, Vec<u8>) {
        let mut stream = bytes;
        let read = read(&mut stream).await;
        let read = read.map(|client| client.map(|client| client.to_string())).map_err(|error| error.to_string());
        (read, stream.to_vec())
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 9, 10, 0, 0, 1, 0x15, 0xb3, 0, 80];

    #[tokio::test]
    async fn the_client_is_told_and_what_follows_is_left() {
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[9], &[0; 16], &[0, 1, 0, 80]].concat();
        let extended = [&V4[..], &[4, 0, 2, 1, 1, 3, 0, 0]].concat();
        for (header, client) in [
            (b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 80\r\n".to_vec(), Some("203.0.113.9:5555")),
            (b"PROXY TCP6 2001:db8::9 ::1 1 80\r\n".to_vec(), Some("[2001:db8::9]:1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f...f:ffff 1 2\r\n".to_vec(), None),
            (binary(0x21, 0x11, &V4), Some("203.0.113.9:5555")),
            (binary(0x21, 0x21, &v6), Some("[2001:db8::9]:1")),
            (binary(0x21, 0x11, &extended), Some("203.0.113.9:5555")),
            (binary(0x20, 0x11, &V4), None),
            (binary(0x20, 0, &[]), None),
            (binary(0x21, 0, &[1, 2, 3]), None),
        ] {
            let (read, left) = parse(&[&header[..], b"GET / HTTP/1.1\r\n"].concat()).await;
            assert_eq!(read, Ok(client.map(str::to_owned)), "{header:?}");
            assert_eq!(left, b"GET / HTTP/1.1\r\n", "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_exactly_a_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        let spilling = [&V4[..], &[4, 0xff, 0xff, 1]].concat();
        let cut = [&V4[..], &[4, 0]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 80\n",
            b"PROXY  TCP4 203.0.113.9 10.0.0.1 5555 80\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 80 x\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 5555\r\n",
            b"PROXY TCP4 2001:db8::9 ::1 1 80\r\n",
            b"PROXY TCP4 203.0.113.09 10.0.0.1 5555 80\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 05555 80\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 +555 80\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 65536 80\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1  80\r\n",
            b"PROXY TCP5 203.0.113.9 10.0.0.1 5555 80\r\n",
            b"proxy TCP4 203.0.113.9 10.0.0.1 5555 80\r\n",
            b"PROXY TCP4 203.0.113.9",
            long.as_bytes(),
            &binary(0x11, 0x11, &V4),
            &binary(0x22, 0x11, &V4),
            &binary(0x21, 0x12, &V4),
            &binary(0x21, 0x31, &[0; 216]),
            &binary(0x21, 0x11, &V4[..11]),
            &binary(0x21, 0x21, &V4),
            &binary(0x21, 0x11, &spilling),
            &binary(0x21, 0x11, &cut),
            &binary(0x21, 0x11, &[0; 5000]),
            &binary(0x21, 0x11, &V4)[..20],
        ] {
            let (read, _) = parse(bytes).await;
            assert!(read.is_err(), "{:?}: {read:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_whatsoever_do_more_than_be_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 0..3) {
            let start: &[u8] = match version { 0 => b"", 1 => b"PROXY TCP4 ", _ => SIGNATURE };
            let bytes = [start, &bytes].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (read, left) = runtime.block_on(parse(&bytes));
            prop_assert!(bytes.ends_with(&left));
            if read.is_ok() {
                prop_assert!(bytes.len() - left.len() <= 16 + MAX_REST);
            }
        }
    }
}
