//! `parametersRef` to settings: a GatewayConfig that exists and whose values can be used.

use control_plane_model::{ObjectName, SamplingRatio};
use crds::gateway_config::GatewayConfigSpec;

use super::log_filter;
use crate::inputs::Inputs;

/// The settings that a `parametersRef` names.
///
/// # Errors: the text for the user (reason `InvalidParameters`).
pub(super) fn resolve(
    group: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    inputs: &Inputs,
) -> Result<GatewayConfigSpec, String> {
    if (group, kind) != (crds::GROUP, "GatewayConfig") {
        return Err(format!("parametersRef names {kind} of {group:?}, want GatewayConfig of {:?}", crds::GROUP));
    }
    let name = ObjectName::new(namespace, name);
    let config = inputs.configs.get(&name).ok_or_else(|| format!("GatewayConfig {name} does not exist"))?;
    check(&config.spec).map_err(|message| format!("GatewayConfig {name}: {message}"))?;
    Ok(config.spec.clone())
}

/// Checks what the schema checks, for objects that no API server has seen, and the log filter, which no schema can.
///
/// # Errors: the text for the user.
pub(crate) fn check(spec: &GatewayConfigSpec) -> Result<(), String> {
    if let Some(replicas) = spec.replicas.filter(|replicas| !(1..=1000).contains(replicas)) {
        return Err(format!("spec.replicas is {replicas}, want 1 to 1000"));
    }
    log_filter::check(&spec.log.filter)?;
    if let Some(tracing) = &spec.telemetry.tracing {
        let endpoint: Result<http::Uri, _> = tracing.endpoint.parse();
        let usable = endpoint.as_ref().is_ok_and(|uri| uri.authority().is_some() && uri.scheme_str() == Some("http"));
        if !usable {
            return Err(format!("spec.telemetry.tracing.endpoint {:?} is not an http URL", tracing.endpoint));
        }
        let sampling = tracing.sampling;
        if sampling.denominator < 1 || sampling.numerator < 0 || sampling.numerator > sampling.denominator {
            return Err("spec.telemetry.tracing.sampling is not a share from 0 to 1".to_owned());
        }
        SamplingRatio::new(sampling.ratio()).map_err(|error| error.to_string())?;
    }
    Ok(())
}
