//! Ranges of addresses (RFC 4632, RFC 4291 §2.3).
//!
//! Invariant: no bit beyond the prefix is set, and an IPv4 range is never written as IPv6, so that equal ranges are equal.

use std::{fmt, net::IpAddr, str::FromStr};

/// The addresses that share some leading bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is not a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// Not an address and a prefix.
    #[error("{0:?} is not a network such as 10.0.0.0/8 or 2001:db8::/32")]
    Form(String),
    /// What is written as IPv6 means IPv4.
    #[error("{0:?} is a network of IPv4 written as IPv6")]
    Mapped(String),
    /// The address has bits that the prefix leaves out.
    #[error("{text:?} has bits beyond its prefix, want {network}")]
    HostBits {
        /// As written.
        text: String,
        /// What was probably meant.
        network: Network,
    },
}

impl Network {
    /// Whether `address` is in it. An IPv4 address may be written as IPv6 (`::ffff:192.0.2.1`).
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

/// `address` without the bits behind the first `prefix`.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V4((u32::from(address) & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            IpAddr::V6((u128::from(address) & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    /// Reads `address/prefix`, or an address alone, which is a range of one.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let form = || InvalidNetwork::Form(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| form())?;
        if address.to_canonical() != address {
            return Err(InvalidNetwork::Mapped(text.to_owned()));
        }
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            // `+8` and `08` are numbers for Rust.
            Some(prefix) if prefix.starts_with('+') || prefix.len() > 1 && prefix.starts_with('0') => {
                return Err(form());
            }
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(form)?,
        };
        let network = Self { address: masked(address, prefix), prefix };
        if network.address == address {
            Ok(network)
        } else {
            Err(InvalidNetwork::HostBits { text: text.to_owned(), network })
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_networks_whose_leading_bits_it_has() {
        let is_in =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        for (network, address) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("::/0", "2001:db8::1"),
        ] {
            assert!(is_in(network, address), "{address} in {network}");
        }
        for (network, address) in
            [("10.0.0.0/8", "11.0.0.1"), ("0.0.0.0/0", "2001:db8::1"), ("::/0", "10.0.0.1"), ("192.0.2.1", "192.0.2.2")]
        {
            assert!(!is_in(network, address), "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_and_what_is_one_is_written_in_one_way() {
        for text in
            ["", "10.0.0.0/", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8", "10.0.0.0/08", "2001:db8::/129", "a.b/8"]
        {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::Form(text.to_owned())));
        }
        assert_eq!("::ffff:10.0.0.0/104".parse::<Network>(), Err(InvalidNetwork::Mapped("::ffff:10.0.0.0/104".into())));
        let error = "10.0.0.5/8".parse::<Network>().unwrap_err();
        assert_eq!(error.to_string(), "\"10.0.0.5/8\" has bits beyond its prefix, want 10.0.0.0/8");
        for (text, written) in
            [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.1", "192.0.2.1/32"), ("2001:DB8:0::/32", "2001:db8::/32")]
        {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), written);
        }
    }
}
