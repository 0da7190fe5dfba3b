use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn our_definitions_are_those_that_crdgen_writes_in_the_repository_and_in_the_chart() {
    let fresh = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_crdgen")).arg("--out").arg(fresh.path()).status().unwrap();
    assert!(status.success());
    for folder in ["crds/generated", "helm/nebula-crds/nebula"] {
        let expected = files(&fresh.path().join(folder));
        let found = files(&repository().join(folder));
        assert_eq!(expected.len(), crds::definitions().len());
        assert_eq!(
            expected.keys().collect::<Vec<_>>(),
            found.keys().collect::<Vec<_>>(),
            "{folder}: run `cargo run -p crds --bin crdgen`, and remove what it does not write"
        );
        for (name, text) in expected {
            assert_eq!(found[&name], text, "{folder}/{name}: run `cargo run -p crds --bin crdgen`");
        }
    }
}

#[test]
fn the_chart_holds_every_gateway_api_kind_that_we_have_a_type_for_in_its_version() {
    let definitions = files(&repository().join("helm/nebula-crds/gateway-api"));
    for (plural, version) in super::gateway_api::KINDS {
        let name = format!("gateway.networking.k8s.io_{plural}.yaml");
        let text = definitions.get(&name).unwrap_or_else(|| panic!("no {name} in the chart"));
        assert!(text.contains("gateway.networking.k8s.io/bundle-version: v1.6.3"), "{name} is of another release");
        assert!(text.contains("gateway.networking.k8s.io/channel: experimental"), "{name} is of another channel");
        let value: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let stored = value["spec"]["versions"].as_array().unwrap().iter().find(|v| v["storage"] == true).unwrap();
        assert_eq!(stored["name"].as_str(), Some(*version), "{name}");
    }
}

/// `kubectl` reads YAML 1.1, where these words are booleans unless they stand in quotes, even as the name of a field.
#[test]
fn no_field_of_ours_is_a_word_that_kubectl_reads_as_a_boolean() {
    for (name, text) in files(&repository().join("crds/generated")) {
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        refuse_booleans(&name, &value);
    }
}

fn refuse_booleans(path: &str, value: &serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let word = name.to_ascii_lowercase();
                assert!(!["y", "n", "yes", "no", "on", "off"].contains(&word.as_str()), "{path}.{name}");
                refuse_booleans(&format!("{path}.{name}"), value);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| refuse_booleans(path, value)),
        _ => {}
    }
}
