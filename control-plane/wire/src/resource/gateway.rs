//! Settings of a Gateway's proxies.

use control_plane_model::{AccessLog, Gateway, GatewayKey, SamplingRatio, Tracing};

use super::{
    error::{Field as _, InvalidResource},
    policy,
};
use crate::proto;

pub(super) fn to_wire(gateway: &Gateway) -> proto::Gateway {
    let access_log = match gateway.access_log {
        AccessLog::Json => proto::AccessLog::Json,
        AccessLog::Off => proto::AccessLog::Off,
    };
    proto::Gateway {
        access_log: access_log.into(),
        tracing: gateway
            .tracing
            .as_ref()
            .map(|tracing| proto::Tracing { endpoint: tracing.endpoint.clone(), sampling: tracing.sampling.get() }),
        policies: policy::keys_to_wire(&gateway.policies),
    }
}

pub(super) fn from_wire(key: GatewayKey, wire: proto::Gateway) -> Result<Gateway, InvalidResource> {
    let access_log = match wire.access_log() {
        proto::AccessLog::Json => Ok(AccessLog::Json),
        proto::AccessLog::Off => Ok(AccessLog::Off),
        proto::AccessLog::Unspecified => Err(InvalidResource::unknown()),
    };
    Ok(Gateway {
        key,
        access_log: access_log.field("access_log")?,
        tracing: wire.tracing.map(tracing_from_wire).transpose().field("tracing")?,
        policies: policy::keys_from_wire(wire.policies)?,
    })
}

fn tracing_from_wire(wire: proto::Tracing) -> Result<Tracing, InvalidResource> {
    let sampling = SamplingRatio::new(wire.sampling).map_err(InvalidResource::new).field("sampling")?;
    let endpoint: http::Uri = wire.endpoint.parse().map_err(InvalidResource::new).field("endpoint")?;
    if endpoint.scheme().is_none() || endpoint.authority().is_none() {
        return Err(InvalidResource::new("is not an absolute URL")).field("endpoint");
    }
    Ok(Tracing { endpoint: wire.endpoint, sampling })
}
