//! Whom a request is forwarded for: what proxies in front wrote into `X-Forwarded-*` or `Forwarded`, believed only as far as the
//! listener's policy goes.
//!
//! Invariant: an address is taken over only where every hop from here to it is trusted, going from the right, as each proxy
//! writes behind what it got. What stands further left may be anybody's invention and is not even looked at. A `Forwarded`
//! that cannot be read in one way alone is refused: its quotes could hide what a trusted proxy wrote behind them.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use control_plane_model::{ClientAddress, ForwardingHeader, Trust};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Authority, Scheme, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::local_reply::Reason;

/// The most proxies in a row that are followed.
const MAX_HOPS: usize = 32;

/// The forwarding fields of a request as they came, taken out of its head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding(HeaderMap);

/// What the trusted proxies say about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client; port 0 where it is not known.
    pub client: SocketAddr,
    /// What the client's own connection speaks, where that is said.
    pub scheme: Option<Scheme>,
    /// The authority that the client asked for, where that is said, in canonical form.
    pub host: Option<HeaderValue>,
}

impl Forwarding {
    /// Whether the field is one of those that are kept.
    pub(super) fn is_one(name: &HeaderName) -> bool {
        [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, header::FORWARDED].contains(name)
    }

    /// Takes every value of the field out of `headers`.
    pub(super) fn take(&mut self, name: HeaderName, headers: &mut HeaderMap) {
        if let header::Entry::Occupied(entry) = headers.entry(name.clone()) {
            for value in entry.remove_entry_mult().1 {
                self.0.append(name.clone(), value);
            }
        }
    }

    /// Follows the trusted proxies, beginning with `peer`, which connects. `None` where the first is not trusted, or says
    /// nothing.
    ///
    /// # Errors: [`Reason::InvalidForwarded`].
    pub fn resolve(&self, policy: &ClientAddress, peer: SocketAddr) -> Result<Option<Origin>, Reason> {
        if !is_trusted(policy, peer.ip(), 0) {
            return Ok(None);
        }
        match policy.header {
            ForwardingHeader::XForwardedFor => Ok(self.by_x_forwarded(policy, peer)),
            ForwardingHeader::Forwarded => self.by_forwarded(policy, peer),
        }
    }

    fn by_x_forwarded(&self, policy: &ClientAddress, peer: SocketAddr) -> Option<Origin> {
        let (client, depth) = walk(policy, peer, self.entries(&X_FORWARDED_FOR).map(node))?;
        let scheme = self.at_depth(&X_FORWARDED_PROTO, depth).and_then(scheme);
        let host = self.at_depth(&X_FORWARDED_HOST, depth).and_then(authority);
        Some(Origin { client, scheme, host })
    }

    fn by_forwarded(&self, policy: &ClientAddress, peer: SocketAddr) -> Result<Option<Origin>, Reason> {
        let mut elements = Vec::new();
        for value in self.0.get_all(header::FORWARDED) {
            read_elements(value.as_bytes(), &mut elements)?;
        }
        let addresses = elements.iter().rev().map(|element| element.client.as_deref().and_then(node));
        let Some((client, depth)) = walk(policy, peer, addresses) else { return Ok(None) };
        let last = depth.checked_sub(1).and_then(|index| elements.iter().rev().nth(index));
        Ok(Some(Origin {
            client,
            scheme: last.and_then(|element| element.proto.as_deref()).and_then(scheme),
            host: last.and_then(|element| element.host.as_deref()).and_then(authority),
        }))
    }

    /// The members of all fields of the name as one list (RFC 9110 §5.3), the last one first.
    fn entries<'a>(&'a self, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let values = self.0.get_all(name).iter().rev();
        let members = values.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
    }

    /// What the proxy at `depth` from the right says; or the only one, as many proxies write one value for all.
    fn at_depth<'a>(&'a self, name: &HeaderName, depth: usize) -> Option<&'a [u8]> {
        let mut entries = self.entries(name);
        let nearest = entries.next()?;
        match entries.next() {
            None => Some(nearest),
            Some(_) => self.entries(name).nth(depth.checked_sub(1)?),
        }
    }
}

/// Whether the `hop`th proxy from the right, counted from 0, is believed.
fn is_trusted(policy: &ClientAddress, address: IpAddr, hop: usize) -> bool {
    match &policy.trust {
        Trust::Hops(hops) => u32::try_from(hop).is_ok_and(|hop| hop < hops.get()),
        Trust::Networks(networks) => networks.iter().any(|network| network.contains(address)),
    }
}

/// The last address that a trusted hop vouches for, and how many hops that takes; `None` for no hop.
fn walk(
    policy: &ClientAddress,
    peer: SocketAddr,
    addresses: impl Iterator<Item = Option<SocketAddr>>,
) -> Option<(SocketAddr, usize)> {
    let mut client = (peer, 0);
    for (hop, address) in addresses.take(MAX_HOPS).enumerate() {
        if !is_trusted(policy, client.0.ip(), hop) {
            break;
        }
        // A proxy that does not say, or does not know, for whom it asks.
        let Some(address) = address else { break };
        client = (address, hop + 1);
    }
    (client.1 > 0).then_some(client)
}

/// An address, with a port or without (RFC 7239 §6). What is obfuscated or unknown is `None`.
fn node(text: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(text).ok()?;
    // A zone means something on the machine that wrote it alone.
    if text.contains('%') {
        return None;
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (address, port) = match text.parse::<SocketAddr>() {
        Ok(address) => (address.ip(), address.port()),
        Err(_) => match bare {
            Some(bare) => (IpAddr::V6(bare.parse().ok()?), 0),
            None => (text.parse().ok()?, 0),
        },
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

fn scheme(text: &[u8]) -> Option<Scheme> {
    [Scheme::Http, Scheme::Https].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
}

fn authority(text: &[u8]) -> Option<HeaderValue> {
    let Authority { host, port } = Authority::parse(text).ok()?;
    let text = match port {
        None => Cow::Borrowed(&*host),
        Some(port) => Cow::Owned(format!("{host}:{port}")),
    };
    HeaderValue::from_str(&text).ok()
}

/// One member of `Forwarded`: what one proxy wrote.
#[derive(Debug, Default)]
struct Element<'a> {
    client: Option<Cow<'a, [u8]>>,
    proto: Option<Cow<'a, [u8]>>,
    host: Option<Cow<'a, [u8]>>,
}

/// Appends the members of one field (RFC 7239 §4). Blanks around `,` and `;` are skipped, as common proxies write them.
fn read_elements<'a>(value: &'a [u8], elements: &mut Vec<Element<'a>>) -> Result<(), Reason> {
    let mut rest = value.trim_ascii();
    while !rest.is_empty() {
        let mut element = Element::default();
        let mut is_empty = true;
        loop {
            rest = rest.trim_ascii_start();
            match rest.split_first() {
                None => break,
                Some((b',', tail)) => {
                    rest = tail;
                    break;
                }
                Some((b';', tail)) => rest = tail,
                Some(_) => {
                    rest = read_pair(rest, &mut element)?;
                    is_empty = false;
                }
            }
        }
        if !is_empty {
            elements.push(element);
        }
    }
    Ok(())
}

/// Reads `name=value` at the start of `text`; returns what follows, which is nothing, `,` or `;`.
fn read_pair<'a>(text: &'a [u8], element: &mut Element<'a>) -> Result<&'a [u8], Reason> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = text.iter().take_while(|byte| is_token(byte)).count();
    let (name, rest) = text.split_at_checked(length).ok_or(Reason::InvalidForwarded)?;
    let rest = rest.strip_prefix(b"=").filter(|_| length > 0).ok_or(Reason::InvalidForwarded)?;
    let (value, rest) = if let Some(rest) = rest.strip_prefix(b"\"") {
        quoted(rest)?
    } else {
        // Brackets and colons should be quoted, and often are not; they can be read in one way alone.
        let length = rest.iter().take_while(|byte| is_token(byte) || b":[]".contains(byte)).count();
        let (value, rest) = rest.split_at_checked(length).ok_or(Reason::InvalidForwarded)?;
        (Cow::Borrowed(value), rest)
    };
    let rest = rest.trim_ascii_start();
    if value.is_empty() || !matches!(rest.first(), None | Some(b',' | b';')) {
        return Err(Reason::InvalidForwarded);
    }
    let place = match name.to_ascii_lowercase().as_slice() {
        b"for" => &mut element.client,
        b"proto" => &mut element.proto,
        b"host" => &mut element.host,
        _ => return Ok(rest),
    };
    // RFC 7239 §4: each parameter once.
    match place.replace(value) {
        None => Ok(rest),
        Some(_) => Err(Reason::InvalidForwarded),
    }
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Reason> {
    let mut value = Vec::new();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return Ok((Cow::Owned(value), bytes.as_slice())),
            b'\\' => value.push(*bytes.next().ok_or(Reason::InvalidForwarded)?),
            _ => value.push(*byte),
        }
    }
    Err(Reason::InvalidForwarded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(trust: &str, header: ForwardingHeader) -> ClientAddress {
        let trust = match trust.parse() {
            Ok(hops) => Trust::Hops(hops),
            Err(_) => Trust::Networks(trust.split(' ').map(|network| network.parse().unwrap()).collect()),
        };
        ClientAddress { trust, header }
    }

    fn forwarding(fields: &[(&'static str, &str)]) -> Forwarding {
        let mut forwarding = Forwarding::default();
        for (name, value) in fields {
            forwarding.0.append(*name, HeaderValue::from_str(value).unwrap());
        }
        forwarding
    }

    /// Who the client is, of a connection from 10.0.0.1.
    fn client(trust: &str, header: ForwardingHeader, values: &[&str]) -> String {
        let name = if header == ForwardingHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let fields: Vec<_> = values.iter().map(|value| (name, *value)).collect();
        let peer = "10.0.0.1:4000".parse().unwrap();
        match forwarding(&fields).resolve(&policy(trust, header), peer) {
            Ok(origin) => origin.map_or(peer, |origin| origin.client).to_string(),
            Err(reason) => reason.word().to_owned(),
        }
    }

    fn x_forwarded_for(trust: &str, values: &[&str]) -> String {
        client(trust, ForwardingHeader::XForwardedFor, values)
    }

    fn forwarded(trust: &str, values: &[&str]) -> String {
        client(trust, ForwardingHeader::Forwarded, values)
    }

    const INNER: &str = "10.0.0.0/8 fd00::/8";
    const PEER: &str = "10.0.0.1:4000";

    #[test]
    fn the_client_is_the_first_address_from_the_right_that_is_not_trusted() {
        for (values, expected) in [
            (&["203.0.113.9"][..], "203.0.113.9:0"),
            (&["1.1.1.1, 203.0.113.9"], "203.0.113.9:0"),
            (&["1.1.1.1, 203.0.113.9, 10.0.0.7"], "203.0.113.9:0"),
            (&["10.0.0.9, 1.1.1.1, 203.0.113.9,10.0.0.7 , fd00::5"], "203.0.113.9:0"),
            (&["1.1.1.1", "203.0.113.9", "10.0.0.7"], "203.0.113.9:0"),
            (&["203.0.113.9:5555"], "203.0.113.9:5555"),
            (&["2001:db8::9"], "[2001:db8::9]:0"),
            (&["[2001:db8::9]"], "[2001:db8::9]:0"),
            (&["[2001:db8::9]:5555"], "[2001:db8::9]:5555"),
            (&["::ffff:203.0.113.9"], "203.0.113.9:0"),
            (&["203.0.113.9,, ,"], "203.0.113.9:0"),
            (&["10.0.0.5, 10.0.0.6"], "10.0.0.5:0"),
        ] {
            assert_eq!(x_forwarded_for(INNER, values), expected, "{values:?}");
        }
    }

    #[test]
    fn where_a_trusted_proxy_names_no_address_it_is_the_client_itself() {
        for values in
            [&[][..], &[""], &["unknown"], &["1.1.1.1, unknown"], &["1.1.1.1, _hidden"], &["fe80::1%eth0"], &["x"]]
        {
            assert_eq!(x_forwarded_for(INNER, values), PEER, "{values:?}");
        }
        assert_eq!(x_forwarded_for(INNER, &["1.1.1.1, 300.1.1.1, 10.0.0.7"]), "10.0.0.7:0");
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
        assert_eq!(x_forwarded_for("192.0.2.0/24", &["203.0.113.9"]), PEER);
        assert_eq!(forwarded("192.0.2.0/24", &["for=203.0.113.9"]), PEER);
        assert_eq!(forwarded("192.0.2.0/24", &["for=\"unclosed"]), PEER, "what is not believed is not read");
    }

    #[test]
    fn hops_are_counted_from_the_right_and_end_with_what_is_there() {
        let values = &["1.1.1.1, 203.0.113.9, 198.51.100.7"];
        assert_eq!(x_forwarded_for("1", values), "198.51.100.7:0");
        assert_eq!(x_forwarded_for("2", values), "203.0.113.9:0");
        assert_eq!(x_forwarded_for("9", values), "1.1.1.1:0");
        assert_eq!(x_forwarded_for("2", &["1.1.1.1, unknown, 198.51.100.7"]), "198.51.100.7:0");
        assert_eq!(x_forwarded_for("2", &[]), PEER);
    }

    #[test]
    fn a_long_chain_of_trusted_addresses_is_followed_for_so_many_hops_alone() {
        let chain = vec!["10.0.0.2"; 10_000].join(",");
        assert_eq!(x_forwarded_for(INNER, &[&format!("203.0.113.9,{chain}")]), "10.0.0.2:0");
    }

    #[test]
    fn only_the_header_that_the_policy_names_is_read() {
        let both = forwarding(&[("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=198.51.100.7")]);
        let peer = PEER.parse().unwrap();
        let of = |header| both.resolve(&policy(INNER, header), peer).unwrap().unwrap().client.ip().to_string();
        assert_eq!(of(ForwardingHeader::XForwardedFor), "203.0.113.9");
        assert_eq!(of(ForwardingHeader::Forwarded), "198.51.100.7");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (values, expected) in [
            (&["for=203.0.113.9"][..], "203.0.113.9:0"),
            (&["for=1.1.1.1, for=203.0.113.9;proto=https;by=10.0.0.1"], "203.0.113.9:0"),
            (&["FOR=\"203.0.113.9:80\" ; Proto=http"], "203.0.113.9:80"),
            (&["for=\"[2001:db8::9]:443\""], "[2001:db8::9]:443"),
            (&["for=[2001:db8::9]"], "[2001:db8::9]:0"),
            (&["for=1.1.1.1", "for=203.0.113.9, for=10.0.0.7"], "203.0.113.9:0"),
            (&["for=203.0.113.9;secret=\"a, for=1.1.1.1\""], "203.0.113.9:0"),
            (&["for=\"203.0.113\\.9\""], "203.0.113.9:0"),
            (&["for=1.1.1.1, proto=https"], PEER),
            (&["for=1.1.1.1, for=unknown"], PEER),
            (&["for=1.1.1.1, for=\"_hidden:_port\""], PEER),
            (&[", ,for=203.0.113.9,"], "203.0.113.9:0"),
        ] {
            assert_eq!(forwarded(INNER, values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_forwarded_that_could_hide_what_a_proxy_wrote_is_refused() {
        for value in [
            "for=\"1.1.1.1, for=203.0.113.9",
            "for=\"1.1.1.1\\, for=203.0.113.9",
            "for=1.1.1.1 x, for=203.0.113.9",
            "for=1.1.1.1;for=2.2.2.2, for=203.0.113.9",
            "for=\"1.1.1.1\"x, for=203.0.113.9",
            "for, for=203.0.113.9",
            "for=, for=203.0.113.9",
            "=1.1.1.1, for=203.0.113.9",
            "for =1.1.1.1",
        ] {
            assert_eq!(forwarded(INNER, &[value]), "invalid_forwarded", "{value}");
        }
    }

    #[test]
    fn scheme_and_host_are_those_that_were_written_with_the_client() {
        let origin = |fields: &[(&'static str, &str)], header| {
            let origin = forwarding(fields).resolve(&policy(INNER, header), PEER.parse().unwrap()).unwrap().unwrap();
            (origin.scheme, origin.host.map(|host| host.to_str().unwrap().to_owned()))
        };
        let x = |fields: &[(&'static str, &str)]| {
            let fields = [&[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.7")], fields].concat();
            origin(&fields, ForwardingHeader::XForwardedFor)
        };
        let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
        assert_eq!(x(&[]), (None, None));
        assert_eq!(
            x(&[("x-forwarded-proto", "HTTPS"), ("x-forwarded-host", "Shop.Example:8443")]),
            (https, Some("shop.example:8443".into()))
        );
        assert_eq!(x(&[("x-forwarded-proto", "http, https, http")]), (https, None));
        assert_eq!(x(&[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")]), (http, None));
        assert_eq!(x(&[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a b")]), (None, None));
        let forwarded = [(
            "forwarded",
            "for=1.1.1.1;proto=http;host=evil, for=203.0.113.9;proto=https;host=a.example, for=10.0.0.7;proto=http",
        )];
        assert_eq!(origin(&forwarded, ForwardingHeader::Forwarded), (https, Some("a.example".into())));
    }
}
