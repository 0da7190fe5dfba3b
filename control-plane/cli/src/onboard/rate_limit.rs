//! The RateLimitPolicy: limits to start from, which refuse nothing until someone says so.

use super::{Arguments, yaml::quoted};

/// The RateLimitPolicy as YAML.
pub fn write(arguments: &Arguments) -> String {
    let (name, namespace) = (quoted(arguments.name()), quoted(&arguments.namespace));
    let rule = super::route::RULE;
    format!(
        "\
# How much one client may ask for; see docs/policies/rate-limit.md.
apiVersion: nebula.dev/v1alpha1
kind: RateLimitPolicy
metadata:
  name: {name}
  namespace: {namespace}
spec:
  targetRefs:
    # The whole route; `sectionName: {rule}` would be its rule of that name alone.
    - group: gateway.networking.k8s.io
      kind: HTTPRoute
      name: {name}
  # LOOK: nothing is refused while this is here; the access log says what would have been. Remove it once the limits fit.
  mode: Report
  limits:
    client:
      # LOOK: requests of one address in a second, and after a quiet time at once. An office behind one address is one
      # client; where clients are authenticated, `key: [{{type: Claim, name: sub}}]` tells them apart.
      rate: 50
      per: 1s
      burst: 100
  concurrency:
    client:
      # LOOK: requests of one address that are under way. Slow ones pile up where only their number in a second is limited.
      limit: 100
"
    )
}
