//! Which endpoint an attempt goes to: those that may get requests, then the policy's way to choose among them.
//!
//! Invariant: constant time while all endpoints may get requests; else each is looked at once, and nothing is allocated.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use control_plane_model::{BackendSettings, Balance, HashKey};
use http::{HeaderMap, HeaderValue, header};
use policy_balance::{HashRing, Maglev, power_of_two_choices};
use policy_resilience::is_panic;
use rand::{Rng, RngExt as _};
use tokio::time::Instant;

use super::{Endpoint, WorkerId};
use crate::local_reply::Reason;

/// Places of a table that are looked at for one request; where none of them will do, an endpoint is drawn at random.
const MAX_CANDIDATES: usize = 1024;

/// The endpoints of one moment.
#[derive(Default)]
pub(super) struct EndpointSet {
    pub(super) list: Vec<Arc<Endpoint>>,
    table: Option<KeyTable>,
}

/// Which endpoint a key belongs to.
enum KeyTable {
    Ring(HashRing),
    Maglev(Maglev),
}

impl EndpointSet {
    pub(super) fn new(list: Vec<Arc<Endpoint>>, balance: Option<&Balance>) -> Self {
        let addresses = || list.iter().map(|endpoint| endpoint.address).collect::<Vec<_>>();
        let table = match balance {
            Some(Balance::RingHash(_)) => Some(KeyTable::Ring(HashRing::new(&addresses()))),
            Some(Balance::Maglev(_)) => Some(KeyTable::Maglev(Maglev::new(&addresses()))),
            _ => None,
        };
        Self { list, table }
    }

    /// The first endpoint for `key` that `accepts`.
    fn for_key(&self, key: &[u8], accepts: impl Fn(&Arc<Endpoint>) -> bool) -> Option<&Arc<Endpoint>> {
        let find = |index: usize| self.list.get(index).filter(|endpoint| accepts(endpoint));
        match self.table.as_ref()? {
            KeyTable::Ring(ring) => ring.candidates(key).take(MAX_CANDIDATES).find_map(find),
            KeyTable::Maglev(table) => table.candidates(key).take(MAX_CANDIDATES).find_map(find),
        }
    }
}

/// Why an attempt has nowhere to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoEndpoint {
    /// There is none.
    None,
    /// None is well.
    NoneUsable,
}

impl From<NoEndpoint> for Reason {
    fn from(no_endpoint: NoEndpoint) -> Self {
        match no_endpoint {
            NoEndpoint::None => Self::NoEndpoints,
            NoEndpoint::NoneUsable => Self::NoHealthyEndpoints,
        }
    }
}

/// What a request is hashed by.
#[derive(Clone, Debug)]
pub(crate) enum PickKey {
    Address(IpAddr),
    Header(HeaderValue),
    Cookie(Box<[u8]>),
}

impl PickKey {
    /// The key of the request with these fields; `None` where the policy hashes nothing, or nothing that the request has.
    pub(crate) fn of(balance: &Balance, headers: &HeaderMap, client: IpAddr) -> Option<Self> {
        let (Balance::RingHash(key) | Balance::Maglev(key)) = balance else { return None };
        match key {
            HashKey::Address => Some(Self::Address(client)),
            HashKey::Header(name) => headers.get(name).cloned().map(Self::Header),
            HashKey::Cookie(name) => cookie(headers, name).map(|value| Self::Cookie(value.into())),
        }
    }
}

impl PickKey {
    fn find<'a>(&self, set: &'a EndpointSet, accepts: impl Fn(&Arc<Endpoint>) -> bool) -> Option<&'a Arc<Endpoint>> {
        match self {
            Self::Address(IpAddr::V4(address)) => set.for_key(&address.octets(), accepts),
            Self::Address(IpAddr::V6(address)) => set.for_key(&address.octets(), accepts),
            Self::Header(value) => set.for_key(value.as_bytes(), accepts),
            Self::Cookie(value) => set.for_key(value, accepts),
        }
    }
}

/// The value of the first cookie of this name (RFC 6265 section 4.2.1).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(header::COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// One choice.
pub(super) struct Choice<'a> {
    pub(super) set: &'a EndpointSet,
    pub(super) worker: WorkerId,
    pub(super) avoid: Option<&'a Arc<Endpoint>>,
    pub(super) now: Instant,
    pub(super) turn: Option<&'a AtomicUsize>,
}

/// The endpoints to choose among.
#[derive(Clone, Copy)]
enum Usable {
    All,
    /// So many, at this time of the policy.
    Some(usize, Duration),
}

impl Choice<'_> {
    /// By latency and requests under way, among all.
    pub(super) fn cheapest(&self, rng: &mut impl Rng) -> Result<Arc<Endpoint>, NoEndpoint> {
        self.of_two(Usable::All, rng, |endpoint| endpoint.cost(self.worker, self.now))
    }

    /// As the policy says. `time` is that of the policy where some endpoint may be unusable.
    pub(super) fn by_policy(
        &self,
        settings: &BackendSettings,
        time: Option<Duration>,
        key: Option<&PickKey>,
        rng: &mut impl Rng,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        let usable = match time {
            None => Usable::All,
            Some(time) => self.usable(settings.panic_percent, time)?,
        };
        match &settings.balance {
            Balance::PeakEwma => self.of_two(usable, rng, |endpoint| endpoint.cost(self.worker, self.now)),
            Balance::LeastRequest => self.of_two(usable, rng, |endpoint| endpoint.in_flight(self.worker).into()),
            Balance::RoundRobin => self.in_turn(usable),
            Balance::RingHash(_) | Balance::Maglev(_) => match key.and_then(|key| self.for_key(usable, key)) {
                Some(endpoint) => Ok(endpoint.clone()),
                None => self.at_random(usable, rng),
            },
        }
    }

    /// Those that may get requests: all of them where too few are well.
    fn usable(&self, panic_percent: u8, time: Duration) -> Result<Usable, NoEndpoint> {
        let all = self.set.list.len();
        let usable = self.set.list.iter().filter(|endpoint| endpoint.is_usable(time)).count();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        if usable == all || is_panic(small(usable), small(all), panic_percent) {
            return Ok(Usable::All);
        }
        if usable == 0 { Err(NoEndpoint::NoneUsable) } else { Ok(Usable::Some(usable, time)) }
    }

    fn count(&self, usable: Usable) -> usize {
        match usable {
            Usable::All => self.set.list.len(),
            Usable::Some(count, _) => count,
        }
    }

    /// The endpoint with this number among the usable ones.
    fn get(&self, usable: Usable, number: usize) -> Option<&Arc<Endpoint>> {
        match usable {
            Usable::All => self.set.list.get(number),
            Usable::Some(_, time) => self.set.list.iter().filter(|endpoint| endpoint.is_usable(time)).nth(number),
        }
    }

    fn is_avoided(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.avoid.is_some_and(|avoided| Arc::ptr_eq(avoided, endpoint))
    }

    fn of_two(
        &self,
        usable: Usable,
        rng: &mut impl Rng,
        cost: impl Fn(&Endpoint) -> f64,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        let cost = |number| match self.get(usable, number) {
            Some(endpoint) if !self.is_avoided(endpoint) => cost(endpoint),
            _ => f64::INFINITY,
        };
        let number = power_of_two_choices(self.count(usable), rng, cost).ok_or(NoEndpoint::None)?;
        // Another worker may have ejected one since they were counted.
        self.get(usable, number).or_else(|| self.set.list.first()).cloned().ok_or(NoEndpoint::None)
    }

    fn for_key(&self, usable: Usable, key: &PickKey) -> Option<&Arc<Endpoint>> {
        let is_usable = |endpoint: &Endpoint| match usable {
            Usable::All => true,
            Usable::Some(_, time) => endpoint.is_usable(time),
        };
        key.find(self.set, |endpoint| is_usable(endpoint) && !self.is_avoided(endpoint))
    }

    fn in_turn(&self, usable: Usable) -> Result<Arc<Endpoint>, NoEndpoint> {
        let count = self.count(usable);
        let turn = self.turn.map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed));
        self.from(usable, turn.checked_rem(count).ok_or(NoEndpoint::None)?, count)
    }

    fn at_random(&self, usable: Usable, rng: &mut impl Rng) -> Result<Arc<Endpoint>, NoEndpoint> {
        let count = self.count(usable);
        if count == 0 {
            return Err(NoEndpoint::None);
        }
        self.from(usable, rng.random_range(0..count), count)
    }

    /// The endpoint `number`, or the next one where that is the one to avoid.
    fn from(&self, usable: Usable, number: usize, count: usize) -> Result<Arc<Endpoint>, NoEndpoint> {
        let endpoint = self.get(usable, number).filter(|endpoint| !self.is_avoided(endpoint));
        let endpoint = endpoint.or_else(|| self.get(usable, (number + 1).checked_rem(count)?));
        endpoint.or_else(|| self.set.list.first()).cloned().ok_or(NoEndpoint::None)
    }
}
