//! What authentication keeps for the whole process, whatever is reloaded: key sets, accepted tokens, proofs that served.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use kit_process::{
    clock::{Clock, SystemClock},
    drain::Drain,
};
use policy_jose::{ReplayMemory, TokenCache, UnixTime};

use super::{
    keys::{KeySetState, KeyStore},
    password::Work,
};

/// Proofs of possession that are remembered as used.
const REMEMBERED_PROOFS: usize = 64 * 1024;

/// The state of every AuthenticationPolicy of a process. Takes some 2 MiB from the first token on, and some 4 MiB more from
/// the first proof on.
pub struct State {
    clock: Arc<dyn Clock>,
    pub(super) keys: KeyStore,
    seed: [u8; 16],
    tokens: OnceLock<TokenCache>,
    proofs: OnceLock<ReplayMemory>,
    passwords: OnceLock<Work>,
}

impl State {
    pub(super) fn new(clock: Arc<dyn Clock>, seed: [u8; 16]) -> Self {
        let keys = KeyStore::new(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        Self { clock, keys, seed, tokens: OnceLock::new(), proofs: OnceLock::new(), passwords: OnceLock::new() }
    }

    /// Accepted tokens.
    pub(super) fn tokens(&self) -> &TokenCache {
        self.tokens.get_or_init(|| TokenCache::usual(self.seed))
    }

    /// Proofs that served.
    pub(super) fn proofs(&self) -> &ReplayMemory {
        self.proofs.get_or_init(|| ReplayMemory::new(REMEMBERED_PROOFS))
    }

    /// Passwords that are checked, and that were.
    pub(super) fn passwords(&self) -> &Work {
        self.passwords.get_or_init(|| Work::new(self.seed))
    }

    /// Now, as tokens count it.
    pub(super) fn unix_time(&self) -> UnixTime {
        UnixTime(self.clock.unix_seconds())
    }

    /// Fetches key sets until `drain` begins. Once for each process, on a runtime that serves no client.
    pub async fn run(&self, drain: Drain) {
        self.keys.run(drain, rand::random).await;
    }

    /// What is known about every key set in use.
    pub fn key_sets(&self) -> Vec<KeySetState> {
        self.keys.states()
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock), rand::random())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").field("keys", &self.keys).finish_non_exhaustive()
    }
}
