//! The required cases of JSON-Schema-Test-Suite (see tests/suite/README.md).

use std::collections::BTreeSet;

use policy_schema::{Draft, Options, Schema};
use serde_json::Value;

const REMOTES: &str = include_str!("../suite/remotes.jsonl");

/// File and group with a verdict that is not the suite's, and why. One that passes must be taken off.
type Deviations = &'static [(&'static str, &'static str, &'static str)];
const NONE: Deviations = &[];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn run(draft: Draft, name: &str, cases: &str, count: usize, deviations: Deviations) {
    let remotes = lines(REMOTES);
    // What lies in no draft's folder is of any draft, and need not be valid in this one unless its cases name it.
    let is_named = |path: &str| cases.contains(path.rsplit('/').next().unwrap_or(path));
    let is_meant =
        |path: &str| if path.starts_with("draft") { path.starts_with(&format!("{name}/")) } else { is_named(path) };
    let remotes: Vec<(String, &Value)> = remotes
        .iter()
        .filter(|remote| is_meant(text(remote, "path")))
        .map(|remote| (format!("http://localhost:1234/{}", text(remote, "path")), &remote["document"]))
        .collect();
    let remotes: Vec<(&str, &Value)> = remotes.iter().map(|(uri, document)| (uri.as_str(), *document)).collect();
    let (mut passed, mut failed) = (0, BTreeSet::new());
    for group in lines(cases) {
        let schema = Schema::compile(&group["schema"], Some(draft), &remotes, &Options::default());
        for case in group["tests"].as_array().unwrap() {
            let verdict = schema.as_ref().map(|schema| schema.validate(&case["data"]).is_ok());
            if verdict.as_ref().ok() == case["valid"].as_bool().as_ref() {
                passed += 1;
            } else {
                let case = ["file", "description"].map(|name| text(&group, name).to_owned());
                eprintln!("{case:?} {:?}: {verdict:?}", group["tests"]);
                failed.insert(case);
            }
        }
    }
    println!("{name}: {passed} passed, {} groups deviate", failed.len());
    let expected: BTreeSet<[String; 2]> =
        deviations.iter().map(|(file, group, _)| [(*file).to_owned(), (*group).to_owned()]).collect();
    assert_eq!(failed, expected);
    // A suite that lost its cases would pass too.
    assert!(passed >= count, "{passed} of {count}");
}

#[test]
fn draft_4() {
    run(Draft::Draft4, "draft4", include_str!("../suite/draft4.jsonl"), 610, NONE);
}

#[test]
fn draft_6() {
    run(Draft::Draft6, "draft6", include_str!("../suite/draft6.jsonl"), 829, NONE);
}

#[test]
fn draft_7() {
    run(Draft::Draft7, "draft7", include_str!("../suite/draft7.jsonl"), 913, NONE);
}

#[test]
fn draft_2019_09() {
    run(Draft::Draft201909, "draft2019-09", include_str!("../suite/draft2019-09.jsonl"), 1227, NONE);
}

#[test]
fn draft_2020_12() {
    run(Draft::Draft202012, "draft2020-12", include_str!("../suite/draft2020-12.jsonl"), 1257, NONE);
}
