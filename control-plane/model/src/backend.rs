//! Backends: a Service's port, how to speak to it, and where its endpoints are.

use std::net::SocketAddr;

use crate::{BackendKey, PolicyKey};

/// A Service's port, shared by every route that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The Service and port.
    pub key: BackendKey,
    /// What is spoken with its endpoints.
    pub protocol: BackendProtocol,
    /// For every request that it gets; at most one of a kind, sorted.
    pub policies: Vec<PolicyKey>,
}

/// What a backend speaks, from the Service port's `appProtocol` (GEP-1911).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendProtocol {
    /// HTTP/1.1, with upgrades (`kubernetes.io/ws`). gRPC requests are sent as HTTP/2 nevertheless.
    Http1,
    /// HTTP/2 with prior knowledge (`kubernetes.io/h2c`).
    H2c,
}

/// Where a backend's pods are. Apart from [`Backend`], so that a pod's coming and going is a small message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The backend.
    pub key: BackendKey,
    /// Ready endpoints, sorted by address, without repeats; may be empty.
    pub endpoints: Vec<Endpoint>,
}

/// One address of a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address and target port.
    pub address: SocketAddr,
}
