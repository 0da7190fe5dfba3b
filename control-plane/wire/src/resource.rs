//! Wire form of configuration objects: one file a kind, both directions beside each other.
//!
//! Invariants: `decode(key, encode(object).body)` is the object; equal objects have equal bytes on every replica, and so
//! equal versions; what the model's invariants forbid, and what this version does not know, is refused with the path of
//! the field.

mod backend;
mod certificate;
mod duration;
mod error;
mod filter;
mod gateway;
mod listener;
mod matching;
mod policy;
mod route;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use control_plane_model::{Resource, ResourceKey, Revision};
use prost::Message;
use sha2::{Digest as _, Sha256};

pub use error::InvalidResource;

/// Kinds of object that this version understands, as they begin a key's text form.
pub const KINDS: [&str; 7] = ["gateway", "certificate", "policy", "listener", "backend", "endpoints", "route"];

/// A hash of an object's content: the first 16 bytes of its body's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; 16]);

impl Version {
    fn of(body: &[u8]) -> Self {
        let mut version = [0; 16];
        for (target, byte) in version.iter_mut().zip(Sha256::digest(body)) {
            *target = byte;
        }
        Self(version)
    }

    /// The version with these bytes; `None` unless there are 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// A version that no object has.
    pub(crate) fn none() -> Self {
        Self([0; 16])
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// An object in its wire form, encoded once for all proxies. Its `Debug` form shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Hash of `body`.
    pub version: Version,
    /// The kind's message in `resources.proto`.
    pub body: Bytes,
    /// How new it is; not part of the content.
    pub revision: Revision,
}

impl fmt::Debug for Encoded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Encoded").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The object's wire form, of unknown revision. Its key travels apart from it.
pub fn encode(resource: &Resource) -> Encoded {
    let body = match resource {
        Resource::Gateway(object) => gateway::to_wire(object).encode_to_vec(),
        Resource::Certificate(object) => certificate::to_wire(object).encode_to_vec(),
        Resource::Policy(object) => policy::to_wire(object).encode_to_vec(),
        Resource::Listener(object) => listener::to_wire(object).encode_to_vec(),
        Resource::Backend(object) => backend::to_wire(object).encode_to_vec(),
        Resource::Endpoints(object) => backend::endpoints_to_wire(object).encode_to_vec(),
        Resource::Route(object) => route::to_wire(object).encode_to_vec(),
    };
    Encoded { version: Version::of(&body), body: body.into(), revision: Revision::UNKNOWN }
}

/// The object named `key` whose wire form is `body`.
///
/// # Errors: [`InvalidResource`] for a body that is not protobuf, breaks an invariant of the model, or holds a field or a
/// choice that this version does not know.
pub fn decode(key: &ResourceKey, body: &Bytes) -> Result<Resource, InvalidResource> {
    Ok(match key.clone() {
        ResourceKey::Gateway(key) => Resource::Gateway(Arc::new(gateway::from_wire(key, parse(body)?)?)),
        ResourceKey::Certificate(key) => Resource::Certificate(Arc::new(certificate::from_wire(key, parse(body)?)?)),
        ResourceKey::Policy(key) => Resource::Policy(Arc::new(policy::from_wire(key, parse(body)?)?)),
        ResourceKey::Listener(key) => Resource::Listener(Arc::new(listener::from_wire(key, parse(body)?)?)),
        ResourceKey::Backend(key) => Resource::Backend(Arc::new(backend::from_wire(key, parse(body)?)?)),
        ResourceKey::Endpoints(key) => Resource::Endpoints(Arc::new(backend::endpoints_from_wire(key, parse(body)?)?)),
        ResourceKey::Route(key) => Resource::Route(Arc::new(route::from_wire(key, parse(body)?)?)),
    })
}

fn parse<M: Message + Default>(body: &Bytes) -> Result<M, InvalidResource> {
    // The reason that prost gives may quote the body; it is left out.
    let message = M::decode(body.clone()).map_err(|_| InvalidResource::new("is not a message of its kind"))?;
    // prost skips fields that it does not know: then less comes out than went in.
    if message.encoded_len() == body.len() {
        Ok(message)
    } else {
        Err(InvalidResource::new("holds a field that this version does not know"))
    }
}
