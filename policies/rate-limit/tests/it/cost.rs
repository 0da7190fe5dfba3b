//! What a decision costs, in time of the processor. Prints; asserts nothing about time, which belongs to the machine.
//!
//! `cargo test --release -p policy-rate-limit -- --ignored --nocapture --test-threads 1 cost`

use std::{
    hint::black_box,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    thread,
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::FakeRelativeClock};
use policy_rate_limit::{
    AddressGrouping, Bucket, Buckets, Claim, InFlight, Key, KeyBuilder, KeySeed, Limit, PartKind, headers, take_all,
};

const CALLS: u32 = 4_000_000;

/// What this thread has run so far (Linux).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn measure(what: &str, mut call: impl FnMut(u64, Duration)) {
    let start = processor_time();
    for number in 0..CALLS {
        // 50 ns apart.
        call(number.into(), Duration::from_nanos(50 * u64::from(number)));
    }
    let each = processor_time().saturating_sub(start).as_secs_f64() * 1e9 / f64::from(CALLS);
    println!("{what:58} {each:6.1} ns");
}

fn hashed(number: u64) -> Key {
    let address = std::net::Ipv6Addr::from(u128::from(number) << 64);
    KeyBuilder::new(&KeySeed::new([7; 16]))
        .constant("rule-7")
        .address(address.into(), AddressGrouping::default())
        .finish()
}

/// Spread over `keys` numbers, without a pattern that a cache could follow.
fn spread(number: u64, keys: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(20);
    u64::try_from((u128::from(mixed) * u128::from(keys)) >> 64).unwrap()
}

#[test]
#[ignore = "a measurement"]
fn cost() {
    let limit = Limit::new(1_000_000, Duration::from_secs(1), 100).unwrap();
    let table = |keys| Buckets::new(NonZeroUsize::new(keys).unwrap());
    let bucket = Bucket::default();
    measure("bucket", |_, now| {
        black_box(bucket.take(&limit, 1, now));
    });
    measure("hash of rule and address", |number, _| {
        black_box(hashed(number));
    });
    measure("hash of rule, address and header", |number, _| {
        let value = Some(&b"tenant-0123456789"[..]);
        let key = KeyBuilder::new(&KeySeed::new([7; 16])).constant("rule-7");
        let key = key.address(
            std::net::Ipv4Addr::from(number.to_le_bytes().first_chunk::<4>().copied().unwrap_or_default()).into(),
            AddressGrouping::default(),
        );
        black_box(key.text(PartKind::Header, "x-tenant", value, "none").finish());
    });
    let rule = KeyBuilder::new(&KeySeed::new([7; 16])).constant("rule-7");
    measure("hash of an address after a rule", |number, _| {
        let address = std::net::Ipv6Addr::from(u128::from(number) << 64);
        black_box(rule.clone().address(address.into(), AddressGrouping::default()).finish());
    });
    for keys in [1, 1000, 100_000, 1_000_000] {
        let buckets = table(2 * usize::try_from(keys).unwrap());
        measure(&format!("hash after a rule and keyed bucket, {keys} keys"), |number, now| {
            let address = std::net::Ipv6Addr::from(u128::from(spread(number, keys)) << 64);
            let key = rule.clone().address(address.into(), AddressGrouping::default()).finish();
            black_box(buckets.take(key, &limit, 1, now));
        });
    }
    let quota = Quota::per_second(NonZeroU32::MAX);
    let peer = RateLimiter::hashmap_with_clock(quota, FakeRelativeClock::default());
    measure("governor's keyed limiter, 100000 numbers as keys", |number, _| {
        black_box(peer.check_key(&spread(number, 100_000)).is_ok());
    });
    let (buckets, slow) = (table(100_000), Limit::new(1, Duration::from_hours(1), 10).unwrap());
    measure("hash and keyed bucket, never the same key, with eviction", |number, now| {
        black_box(buckets.take(hashed(number), &slow, 1, now));
    });
    let buckets = table(2000);
    let keys: Vec<Key> = (0..2000).map(hashed).collect();
    measure("keyed bucket, 1000 keys", |number, now| {
        black_box(keys.get((number % 1000) as usize).map(|key| buckets.take(*key, &limit, 1, now)));
    });
    measure("two keyed buckets at once, 1000 keys each", |number, now| {
        let claim = |offset| Claim { buckets: &buckets, key: keys[(number % 1000) as usize + offset], limit, cost: 1 };
        black_box(take_all(&[claim(0), claim(1000)], now).is_ok());
    });
    let in_flight = Arc::new(InFlight::new(NonZeroUsize::new(100_000).unwrap()));
    measure("hash, permit and its release, 100000 keys", |number, _| {
        black_box(in_flight.acquire(hashed(spread(number, 100_000)), NonZeroU32::MAX).is_ok());
    });
    let name = headers::PolicyName::new("default").unwrap();
    let decision = bucket.peek(&limit, 1, Duration::from_secs(1));
    measure("value of RateLimit", |_, _| {
        black_box(headers::service_limits([headers::ServiceLimit { name: &name, limit, decision }]));
    });
    let buckets = table(200_000);
    thread::scope(|scope| {
        for thread in 0..2 {
            let buckets = &buckets;
            scope.spawn(move || {
                let key = hashed(1);
                measure(&format!("keyed bucket, two threads on one key, thread {thread}"), |_, now| {
                    black_box(buckets.take(key, &limit, 1, now));
                });
            });
        }
    });
}
