//! Secrets: what is served, what is refused, and that a key is never shown.

use control_plane_translate::{Mode, Translator};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

use super::support::{changes, read, render, translator};

/// Fills in `{CERTIFICATE}`, its `{KEY}`, and a key that is not its own, as YAML strings.
pub fn with_certificates(yaml: &str) -> String {
    if !yaml.contains("{CERTIFICATE}") {
        return yaml.to_owned();
    }
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["edge.example.com".to_owned()]).unwrap();
    let quoted = |pem: String| serde_json::to_string(&pem).unwrap();
    yaml.replace("{CERTIFICATE}", &quoted(cert.pem()))
        .replace("{KEY}", &quoted(signing_key.serialize_pem()))
        .replace("{OTHER_KEY}", &quoted(KeyPair::generate().unwrap().serialize_pem()))
}

fn secrets() -> (Translator, String) {
    let yaml = with_certificates(&read("golden/secrets/input.yaml"));
    let mut translator = translator(Mode::Cluster);
    let _ = translator.apply(changes(&yaml));
    (translator, yaml)
}

#[test]
fn no_part_of_a_key_is_in_what_is_said() {
    let (translator, yaml) = secrets();
    let said = format!("{}{:?}{:?}", render(&translator), translator.problems(), changes(&yaml));
    let private = yaml.split("PRIVATE KEY").nth(1).unwrap();
    let line = private.split("\\n").find(|line| line.len() > 40).unwrap();
    assert!(yaml.contains(line) && !said.contains(line), "{line}");
}

#[test]
fn a_secret_that_changes_changes_its_certificate_alone() {
    let (mut translator, _) = secrets();
    let yaml = with_certificates(&read("golden/secrets/input.yaml"));
    let secret = yaml.split("\n---\n").find(|text| text.contains("name: good, namespace: infra")).unwrap();
    let output = translator.apply(changes(secret));
    let keys: Vec<String> = output.delta.upserted.iter().map(|resource| resource.key().to_string()).collect();
    assert_eq!(keys, ["certificate/infra/good"]);
    assert!(output.delta.removed.is_empty() && output.statuses.is_empty());
}
