//! A flood of keys, and how keys fill a table.

use std::{num::NonZeroUsize, time::Duration};

use policy_rate_limit::{AddressGrouping, Buckets, Key, KeyBuilder, KeySeed, Limit, Verdict};

fn limit(rate: u64, per: Duration, burst: u64) -> Limit {
    Limit::new(rate, per, burst).unwrap()
}

fn table(max_keys: usize) -> Buckets {
    Buckets::new(NonZeroUsize::new(max_keys).unwrap())
}

fn seed() -> KeySeed {
    KeySeed::new(*b"0123456789abcdef")
}

fn key(rule: &str, number: u64) -> Key {
    let address = std::net::Ipv6Addr::from(u128::from(number) << 64);
    KeyBuilder::new(&seed()).constant(rule).address(address.into(), AddressGrouping::default()).finish()
}

/// One exhausted key and `keys` others that nobody has seen, in the time in which the exhausted one gets 100 units back.
fn flood(keys: u32) {
    let limit = limit(10, Duration::from_secs(1), 20);
    let buckets = table(10_000);
    let capacity = buckets.capacity();
    let (mut admitted, mut flooded) = (0, 0);
    for number in 0..keys {
        let now = Duration::from_secs(10).mul_f64(f64::from(number) / f64::from(keys));
        flooded += u32::from(buckets.take(key("flood", number.into()), &limit, 1, now).is_allowed());
        if number % 20 == 0 {
            admitted += u64::from(buckets.take(key("victim", 0), &limit, 1, now).is_allowed());
        }
    }
    assert_eq!(flooded, keys, "each of them has a bucket of its own, which is full");
    assert!((119..=120).contains(&admitted), "burst and rate, in spite of the flood: {admitted}");
    assert!(buckets.in_use(Duration::from_secs(10)) <= capacity && buckets.capacity() == capacity);
    let remembered = buckets.peek(key("victim", 0), &limit, 20, Duration::from_secs(10)).verdict;
    assert!(matches!(remembered, Verdict::RetryAfter(_)));
    assert!(buckets.evictions() > 0 && buckets.evictions() < u64::from(keys));
}

#[test]
fn a_flood_of_keys_neither_grows_the_table_nor_frees_an_exhausted_key() {
    flood(200_000);
}

#[test]
#[ignore = "ten million keys, for a release build: cargo test --release -p policy-rate-limit -- --ignored flood"]
fn a_flood_of_ten_million_keys_neither_grows_the_table_nor_frees_an_exhausted_key() {
    flood(10_000_000);
}

#[test]
fn a_table_has_the_room_that_its_documentation_says() {
    // Every key owes a day, so that no slot becomes free.
    let limit = limit(1, Duration::from_hours(24), 1);
    for (share, expected) in [(2, 0.012), (4, 0.0003)] {
        let buckets = table(700_000);
        let keys = buckets.capacity() / share;
        for number in 0..keys {
            buckets.take(key("room", number as u64), &limit, 1, Duration::ZERO);
        }
        #[expect(clippy::cast_precision_loss, reason = "less than a million")]
        let found_full = buckets.evictions() as f64 / keys as f64;
        assert!((expected * 0.7..expected * 1.3).contains(&found_full), "{share}: {found_full}");
    }
}
