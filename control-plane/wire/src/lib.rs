//! The discovery protocol: how the control plane tells each proxy its configuration (`proto/nebula/discovery/v1`).
//!
//! Invariants: a proxy receives its own Gateway's scope and nothing else; an object is encoded once, and its version is
//! a hash of its content; a transaction reaches the sink whole or not at all; an object that does not decode is refused
//! alone. Bodies may hold private keys, so they are never logged and have no `Debug` form.

pub mod client;
pub mod proto;
pub mod resource;
pub mod server;

use std::time::Duration;

pub use client::{ClientOptions, Connection, DeltaSink, Refused};
pub use resource::{InvalidResource, Version};
pub use server::{
    AuthenticationError, Authenticator, DiscoveryService, Hub, ProxyIdentity, ProxyState, Report, Reports,
};

/// The largest message that either side accepts, bytes. Set on both sides; a message is cut well below it.
pub const MESSAGE_LIMIT: usize = 4 << 20;

/// Where a transaction is cut into parts, bytes of keys and bodies. An object of its own may be larger.
const PART_SIZE: usize = 1 << 20;

/// The largest body of one object, bytes; with its key and envelope it stays below [`MESSAGE_LIMIT`].
const BODY_LIMIT: usize = MESSAGE_LIMIT - PART_SIZE;

/// Longest key, bytes. The longest that Kubernetes' names can make, a listener's of a ListenerSet, is below 900.
const KEY_LIMIT: usize = 1024;

/// How many refusals an Ack lists, and the control plane takes; with [`ERROR_LIMIT`] an Ack stays below the message limit.
const REFUSALS_LIMIT: usize = 2000;

/// Longest error of a refusal that is told, and taken, characters.
const ERROR_LIMIT: usize = 300;

/// How often an idle connection is probed (HTTP/2 PING).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long the answer to a probe may take before the connection counts as lost.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
