//! What the provisioner is to run for a Gateway, as plain data.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16};

use control_plane_model::GatewayKey;
use crds::gateway_config::GatewayConfigSpec;

/// What is to be done with the proxies of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub enum Deployment {
    /// They are to be as described.
    Wanted(Box<DeploymentSpec>),
    /// The Gateway is not accepted (its parameters or addresses are invalid, its class is gone): what runs is left as it is,
    /// nothing new is made.
    Held {
        /// The Gateway's `metadata.uid`.
        uid: String,
    },
}

/// The proxies of one Gateway and the Service in front of them.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentSpec {
    /// The Gateway.
    pub gateway: GatewayKey,
    /// Its `metadata.uid`, for owner references; empty where there is none.
    pub uid: String,
    /// TCP ports of its listeners, in order, each once.
    pub ports: Vec<NonZeroU16>,
    /// `spec.infrastructure.labels`, for every object that is made.
    pub labels: BTreeMap<String, String>,
    /// `spec.infrastructure.annotations`, for every object that is made.
    pub annotations: BTreeMap<String, String>,
    /// Addresses that the Gateway asks for; empty for any.
    pub addresses: Vec<IpAddr>,
    /// What its GatewayConfig says, or that of its GatewayClass, or every default.
    pub settings: GatewayConfigSpec,
}
