//! What the chart grants by name is what the control plane uses.

use control_plane::{ca, lease};

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
}
