use std::{num::NonZeroU32, time::Duration};

use control_plane_model::{
    Leveled, ObjectName, PolicyKind, PolicySpec,
    validation::{BodySettings, Content, Draft, Formats, SchemaSource},
};
use gateway_engine::{
    filter::{Buffers, ClientBody, Received},
    limits::Limits,
    notes::Notes,
    strict::Scheme,
};
use serde_json::{Value, json};

use super::*;

fn settings(schema: &Value) -> ValidationSettings {
    let source = SchemaSource {
        schema: schema.to_string().into(),
        resources: Arc::default(),
        draft: Draft::Draft202012,
        formats: Formats::ByDraft,
    };
    let content = [(Arc::from("application/json"), Content::Checked(Some(Arc::new(source))))].into();
    let body = BodySettings { content, max_bytes: NonZeroU32::new(1 << 20), ..BodySettings::default() };
    ValidationSettings { body, ..ValidationSettings::default() }
}

fn policy(name: &str, settings: ValidationSettings) -> Arc<Policy> {
    let key = PolicyKey { kind: PolicyKind::RequestValidation, name: ObjectName::new("shop", name) };
    Arc::new(Policy { key, spec: PolicySpec::RequestValidation(Leveled { settings, overrides: None }) })
}

fn filter(levels: &[Arc<Policy>]) -> RequestValidation {
    compile(levels, &State::default()).unwrap().unwrap()
}

/// The reason's word, and whether it was only reported; `None` where the request passed unnoticed.
async fn judge(
    filter: &RequestValidation,
    fields: &[(&'static str, &'static str)],
    body: &[u8],
) -> Option<(&'static str, bool)> {
    let received = Received {
        method: Method::POST,
        scheme: Scheme::Http,
        host: "shop.example".into(),
        uri: "/orders".parse().unwrap(),
        listener_port: 80,
        peer: "192.0.2.1:4711".parse().unwrap(),
        matched_prefix: None,
    };
    let mut headers: HeaderMap =
        fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
    let (label, mut notes) = (Arc::from("r"), Notes::default());
    let (mut client, buffers) = (ClientBody::whole(Bytes::copy_from_slice(body)), Buffers::new(&Limits::default()));
    let context = RequestContext::new(&received, &mut headers, (&label, &label), Duration::ZERO, &mut notes);
    let verdict = filter.on_request(&mut context.with_body(&mut client, &buffers)).await;
    match (verdict, notes.decisions().first()) {
        (Verdict::Continue, None) => None,
        (Verdict::Continue, Some(decision)) => Some((decision.reason.word(), decision.reported)),
        (Verdict::Reply(reply), _) => Some((reply.reason().word(), false)),
        (Verdict::Respond(_), _) => panic!("it does not answer by itself"),
    }
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[tokio::test]
async fn what_breaks_a_rule_is_refused_or_reported() {
    let mut settings = settings(&json!({"required": ["id"]}));
    let enforcing = filter(&[policy("a", settings.clone())]);
    settings.mode = Some(Mode::Report);
    let reporting = filter(&[policy("a", settings)]);
    for (fields, body, reason) in [
        (JSON, &b"{\"id\": 1}"[..], None),
        (JSON, b"{}", Some("request_invalid")),
        (JSON, b"{", Some("request_invalid")),
        (&[("content-type", "text/plain")], b"x", Some("unsupported_media_type")),
        (&[("content-type", "application/json"), ("content-encoding", "br")], b"{}", Some("unsupported_media_type")),
        (&[("content-type", "application/json"), ("content-encoding", "Identity")], b"{\"id\": 1}", None),
    ] {
        assert_eq!(judge(&enforcing, fields, body).await, reason.map(|reason| (reason, false)), "{body:?}");
        assert_eq!(judge(&reporting, fields, body).await, reason.map(|reason| (reason, true)), "{body:?}");
    }
    let large = vec![b' '; (1 << 20) + 1];
    assert_eq!(judge(&enforcing, JSON, &large).await, Some(("request_body_too_large", false)));
    assert_eq!(judge(&reporting, JSON, &large).await, Some(("request_body_too_large", true)));
}

#[tokio::test]
async fn a_verdict_does_not_depend_on_where_it_was_made() {
    // More alternatives than are tried at once, for a body that is small.
    let alternatives: Vec<Value> = (0..64).map(|index| json!({"minimum": 1000 + index})).collect();
    let slow = filter(&[policy("a", settings(&json!({"items": {"anyOf": alternatives}})))]);
    let list = |item: &str| format!("[{}]", vec![item; 2_000].join(","));
    assert_eq!(judge(&slow, JSON, list("2000").as_bytes()).await, None);
    assert_eq!(judge(&slow, JSON, list("7").as_bytes()).await, Some(("request_invalid", false)));
    let large = filter(&[policy("a", settings(&json!({"maxLength": 100_000})))]);
    assert_eq!(judge(&large, JSON, format!("\"{}\"", "x".repeat(100_000)).as_bytes()).await, None);
    let longer = format!("\"{}\"", "x".repeat(100_001));
    assert_eq!(judge(&large, JSON, longer.as_bytes()).await, Some(("request_invalid", false)));
}

#[test]
fn a_chain_that_checks_nothing_has_no_filter() {
    let state = State::default();
    assert!(compile(&[], &state).unwrap().is_none());
    assert!(compile(&[policy("a", ValidationSettings::default())], &state).unwrap().is_none());
    let off = ValidationSettings { disabled: Some(true), ..ValidationSettings::default() };
    let chain = [policy("a", settings(&json!({}))), policy("b", off)];
    assert!(compile(&chain, &state).unwrap().is_none());
}

#[test]
fn the_policy_that_a_broken_schema_is_from_is_to_blame() {
    let chain = [policy("a", settings(&json!({"type": "wrong"}))), policy("b", ValidationSettings::default())];
    let error = compile(&chain, &State::default()).unwrap_err();
    assert_eq!(&*error.policy.name.name, "a");
    assert!(error.message.starts_with("body.content.application/json.schema: invalid schema at #/type"), "{error}");
}
