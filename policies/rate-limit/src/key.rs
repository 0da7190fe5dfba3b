//! What a limit counts by, as a keyed hash of typed parts: SipHash-1-3 with 128 bits of output (Aumasson and Bernstein,
//! "SipHash: a fast short-input PRF", 2012). No text of a key is kept.
//!
//! Invariant: different lists of parts are hashed as different bytes, since each part has a tag, and a length before each
//! text. Without the seed nobody can look for keys that share a bucket.

use std::{hash::Hasher as _, net::IpAddr};

use siphasher::sip128::{Hasher128 as _, SipHasher13};

/// The secret of the hash: 16 random bytes, one seed for a process, or for all that share a store.
#[derive(Clone, Copy)]
pub struct KeySeed([u8; 16]);

impl KeySeed {
    /// The bytes must come from a cryptographic random source where clients choose the keys.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for KeySeed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("KeySeed(..)")
    }
}

/// What a bucket belongs to. Two lists of parts have the same key with a probability of 2^-128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// Half of the bits, for finding a place.
    pub(crate) const fn place(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The other half, for telling keys in one place apart.
    #[expect(clippy::cast_possible_truncation, reason = "the lower 64 bits are meant")]
    pub(crate) const fn fingerprint(self) -> u64 {
        self.0 as u64
    }
}

/// How many leading bits of an address count as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressGrouping {
    v4: u8,
    v6: u8,
}

/// The prefix is longer than an address: 32 bits for IPv4, 128 for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prefix of {prefix} bits is longer than an address of {bits}")]
pub struct PrefixTooLong {
    /// What was asked for.
    pub prefix: u8,
    /// What an address has.
    pub bits: u8,
}

impl AddressGrouping {
    /// `v4` of 0 to 32 and `v6` of 0 to 128 bits.
    pub const fn new(v4: u8, v6: u8) -> Result<Self, PrefixTooLong> {
        if v4 > 32 {
            return Err(PrefixTooLong { prefix: v4, bits: 32 });
        }
        if v6 > 128 {
            return Err(PrefixTooLong { prefix: v6, bits: 128 });
        }
        Ok(Self { v4, v6 })
    }
}

/// Each IPv4 address, and each /64 of IPv6, which is what one subscriber has at least (RFC 6177).
impl Default for AddressGrouping {
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

/// What a text of a request is. The numbers are part of the hash: keep them where a store is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PartKind {
    /// A field of the request. Its name in lower case.
    Header = 2,
    /// A cookie.
    Cookie = 3,
    /// A parameter of the query.
    Query = 4,
    /// A claim of a verified token.
    Claim = 5,
    /// The id of a verified API key; never the key itself.
    ApiKey = 6,
    /// The route that matched.
    Route = 7,
    /// The host in its canonical form.
    Host = 8,
    /// A text of the rule, such as its id.
    Constant = 9,
}

const ADDRESS: u8 = 1;

/// Hashes the parts of a key in the order of the calls, which counts. Does not allocate. A clone goes on from where the
/// original is, so what all keys of a rule begin with needs hashing only once.
#[derive(Clone, Debug)]
pub struct KeyBuilder(SipHasher13);

impl KeyBuilder {
    /// A key without parts, which is a key too: one bucket for everybody.
    pub fn new(seed: &KeySeed) -> Self {
        Self(SipHasher13::new_with_key(&seed.0))
    }

    /// The address, or rather its network. An IPv4 address written as IPv6 (`::ffff:0:0/96`) is the IPv4 address.
    pub fn address(mut self, address: IpAddr, grouping: AddressGrouping) -> Self {
        let (version, prefix, network) = match address.to_canonical() {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl((32 - grouping.v4).into()).unwrap_or(0);
                (4, grouping.v4, u128::from(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl((128 - grouping.v6).into()).unwrap_or(0);
                (6, grouping.v6, address.to_bits() & mask)
            }
        };
        self.word([ADDRESS, version, prefix, 0, 0, 0, 0, 0]);
        self.0.write(&network.to_le_bytes());
        self
    }

    /// A text of the request, or `fallback` where it has none. `name` is that of the header, cookie, parameter or claim;
    /// empty for the other kinds.
    ///
    /// A fallback is never the same as a value of the same spelling, so that no client can join those without one.
    pub fn text(mut self, kind: PartKind, name: &str, value: Option<&[u8]>, fallback: &str) -> Self {
        let bytes = value.unwrap_or(fallback.as_bytes());
        self.word([kind as u8, u8::from(value.is_some()), 0, 0, 0, 0, 0, 0]);
        self.word((name.len() as u64).to_le_bytes());
        self.word((bytes.len() as u64).to_le_bytes());
        self.padded(name.as_bytes());
        self.padded(bytes);
        self
    }

    /// A text of the rule.
    pub fn constant(self, text: &str) -> Self {
        self.text(PartKind::Constant, "", Some(text.as_bytes()), "")
    }

    fn word(&mut self, bytes: [u8; 8]) {
        self.0.write_u64(u64::from_ne_bytes(bytes));
    }

    /// Zeros after it, up to a whole word, as the hash is much slower between words. The length was written before.
    fn padded(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(*word);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            self.word(last);
        }
    }

    /// The key of all parts so far.
    pub fn finish(self) -> Key {
        Key(self.0.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn builder() -> KeyBuilder {
        KeyBuilder::new(&KeySeed::new(*b"0123456789abcdef"))
    }

    fn network(address: &str, v4: u8, v6: u8) -> Key {
        builder().address(address.parse().unwrap(), AddressGrouping::new(v4, v6).unwrap()).finish()
    }

    /// The numbers come from another implementation, which gives the paper's vectors. A shared store relies on them.
    #[test]
    fn the_hash_and_the_encoding_stay_as_they_are() {
        let seed = KeySeed::new(std::array::from_fn(|index| u8::try_from(index).unwrap()));
        let key = KeyBuilder::new(&seed)
            .address("2001:db8::1".parse().unwrap(), AddressGrouping::default())
            .text(PartKind::Header, "x-tenant", Some(b"acme"), "none")
            .text(PartKind::Route, "", None, "none")
            .finish();
        assert_eq!((key.fingerprint(), key.place()), (0x79b1_7347_9013_c9ee, 0x8776_d8b5_d5a5_bccf));
    }

    #[test]
    fn a_clone_goes_on_from_where_the_original_is() {
        let rule = builder().constant("rule");
        assert_eq!(rule.clone().constant("a").finish(), builder().constant("rule").constant("a").finish());
        assert_ne!(rule.clone().constant("a").finish(), rule.constant("b").finish());
    }

    #[test]
    fn where_a_text_ends_counts() {
        let key = |first: &str, second: &str| builder().constant(first).constant(second).finish();
        assert_ne!(key("a", "bc"), key("ab", "c"));
        assert_ne!(key("", "abc"), key("abc", ""));
        assert_ne!(key("a", "b"), key("b", "a"));
        assert_ne!(builder().constant("").finish(), builder().finish());
    }

    #[test]
    fn where_a_name_ends_counts() {
        let key = |name: &str, value: &str| builder().text(PartKind::Header, name, Some(value.as_bytes()), "").finish();
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }

    #[test]
    fn the_kind_of_a_text_counts() {
        let key = |kind| builder().text(kind, "tenant", Some(b"1"), "none").finish();
        assert_ne!(key(PartKind::Header), key(PartKind::Query));
        assert_ne!(key(PartKind::Cookie), key(PartKind::Claim));
    }

    #[test]
    fn no_client_can_spell_the_fallback() {
        let key = |value| builder().text(PartKind::Header, "x-tenant", value, "none").finish();
        assert_ne!(key(None), key(Some(&b"none"[..])));
        assert_ne!(key(None), key(Some(&b""[..])));
        assert_eq!(key(None), key(None));
        assert_ne!(key(None), builder().text(PartKind::Header, "x-tenant", None, "other").finish());
    }

    #[test]
    fn a_64_of_ipv6_is_one_client_and_an_ipv4_address_is_one() {
        let key = |address: &str| builder().address(address.parse().unwrap(), AddressGrouping::default()).finish();
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:0:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("0.0.0.0"), key("::"));
    }

    #[test]
    fn prefixes_go_from_none_of_an_address_to_all_of_it() {
        assert_eq!(network("192.0.2.1", 0, 0), network("198.51.100.7", 0, 0));
        assert_eq!(network("2001:db8::1", 0, 0), network("2001:db9::1", 0, 0));
        assert_ne!(network("2001:db8::1", 32, 128), network("2001:db8::2", 32, 128));
        assert_eq!(network("192.0.2.1", 24, 64), network("192.0.2.99", 24, 64));
        assert_eq!(AddressGrouping::new(33, 64), Err(PrefixTooLong { prefix: 33, bits: 32 }));
        assert_eq!(AddressGrouping::new(32, 129), Err(PrefixTooLong { prefix: 129, bits: 128 }));
    }

    #[test]
    fn a_seed_is_not_in_its_debug_text() {
        assert_eq!(format!("{:?}", KeySeed::new([7; 16])), "KeySeed(..)");
    }

    type Part = (bool, String, Option<String>);

    fn key_of(parts: &[Part]) -> Key {
        let hash = |builder: KeyBuilder, (is_header, name, value): &Part| {
            let kind = if *is_header { PartKind::Header } else { PartKind::Query };
            builder.text(kind, name, value.as_deref().map(str::as_bytes), "a")
        };
        parts.iter().fold(builder(), hash).finish()
    }

    proptest! {
        #[test]
        fn keys_are_equal_where_the_parts_are(
            lists in prop::collection::vec(
                prop::collection::vec((any::<bool>(), "[ab]{0,2}", prop::option::of("[ab]{0,2}")), 0..3), 2..60),
        ) {
            let mut seen: HashMap<Key, &[Part]> = HashMap::new();
            for parts in &lists {
                let first = seen.entry(key_of(parts)).or_insert(parts);
                prop_assert_eq!(*first, parts.as_slice());
                prop_assert_eq!(key_of(parts), key_of(&parts.clone()));
            }
        }
    }
}
