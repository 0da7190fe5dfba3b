//! The hash map behind every look-up that a request makes.

use std::collections::HashMap;

/// Keys are what the operator has configured. Clients ask and put nothing in, so no flood of keys that collide is to be
/// feared, and a hash that is fast on short text will do.
pub(crate) type LookupMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
