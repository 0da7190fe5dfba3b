//! Golden files: `golden/<case>/input.yaml` (`kind: Batch` begins the next batch of changes) and what becomes of it, beside it. After a change that is meant, look at what
//! `cargo insta review` shows, or run the tests with insta's `INSTA_UPDATE=always`.

use control_plane_translate::Mode;

use super::{
    certificates::with_certificates,
    support::{batches, changes, read, render, translator},
};

fn check(case: &str, mode: Mode) {
    let yaml = with_certificates(&read(&format!("golden/{case}/input.yaml")));
    let mut translator = translator(mode);
    for batch in batches(&yaml) {
        let _ = translator.apply(batch);
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("../golden/{case}"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("output", render(&translator)));
}

/// Without it the case would not tell a grant that was taken away from one that never was.
#[test]
fn the_grant_that_is_removed_held_before() {
    let yaml = read("golden/reference-grant-removed/input.yaml");
    let mut translator = translator(Mode::Cluster);
    let [before, _] = batches(&yaml).try_into().unwrap();
    let _ = translator.apply(before);
    assert_eq!(translator.snapshot().backends.len(), 1);
    let _ = translator.apply(changes("kind: Remove\nof: ReferenceGrant\nnamespace: apis\nname: g"));
    assert!(translator.snapshot().backends.is_empty());
}

/// Every reason that a golden case ends with is explained to the user.
#[test]
fn the_status_page_explains_every_reason() {
    let page = read("../../../docs/status.md");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut explained = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let output = std::fs::read_to_string(entry.unwrap().path().join("output.snap")).unwrap();
        for line in output.lines() {
            // `Type=Status Reason (generation) message`
            let Some((condition, rest)) = line.trim().split_once(' ') else { continue };
            if !(condition.ends_with("=True") || condition.ends_with("=False")) {
                continue;
            }
            let reason = rest.split(' ').next().unwrap();
            let (kind, _) = condition.split_once('=').unwrap();
            assert!(page.contains(kind) && page.contains(reason), "{condition} {reason} is not in docs/status.md");
            explained += 1;
        }
    }
    assert!(explained > 100, "{explained}");
}

macro_rules! golden {
    ($($case:ident: $mode:ident,)*) => {
        $(#[test]
        fn $case() {
            check(&stringify!($case).replace('_', "-"), Mode::$mode);
        })*

        /// A case that no test names would never be compared.
        #[test]
        fn every_case_has_its_test() {
            let mut named: Vec<String> = vec![$(stringify!($case).replace('_', "-")),*];
            named.sort();
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
            let entries = std::fs::read_dir(folder).unwrap();
            let mut found: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            found.sort();
            assert_eq!(named, found);
        }
    };
}

golden! {
    simple: Cluster,
    standalone: Standalone,
    grpc: Cluster,
    filters: Cluster,
    matches: Cluster,
    attachment: Cluster,
    listener_conflicts: Cluster,
    listener_sets: Cluster,
    reference_grants: Cluster,
    reference_grant_removed: Cluster,
    unknown_filter: Cluster,
    invalid_rules: Cluster,
    missing_backends: Cluster,
    endpoint_slices: Cluster,
    secrets: Cluster,
    same_match_twice: Cluster,
    parameters: Cluster,
    addresses: Cluster,
    refused_by_proxy: Cluster,
    not_ours: Cluster,
    policies: Cluster,
    backend_policies: Cluster,
    request_validation: Cluster,
    authentication: Cluster,
    client_policies: Cluster,
}
