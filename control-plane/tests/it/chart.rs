//! What the chart grants by name is what the control plane uses.

use control_plane::{
    ca, lease,
    provisioner::names::{bundle_name, controller_label},
};

/// The text that a helper of the chart stands for.
fn helper(name: &str) -> &'static str {
    let helpers = include_str!("../../../helm/nebula/templates/_helpers.tpl");
    let start = format!("{{{{- define \"{name}\" -}}}}\n");
    let (_, rest) = helpers.split_once(&start).unwrap();
    rest.split_once("\n{{- end -}}").unwrap().0
}

#[test]
fn the_lease_and_the_secret_are_granted_under_the_names_that_are_used() {
    assert_eq!(helper("nebula.lease"), lease::NAME);
    assert_eq!(helper("nebula.authority"), ca::NAME);
    let label = controller_label("nebula.dev/gateway-controller");
    let bundle = helper("nebula.bundle").replace("{{ .Values.controllerName | sha256sum | trunc 10 }}", &label);
    assert_eq!(bundle, bundle_name(&label));
    assert_eq!(bundle, "nebula-ca-640753898c", "as documents and the tests in a cluster call it");
}
