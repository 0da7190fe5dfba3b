//! Settings of a RequestValidationPolicy.

use std::{collections::BTreeMap, sync::Arc};

use control_plane_model::{
    ValidationSettings,
    validation::{
        BodySettings, Content, Draft, Formats, InvalidStatus, JsonText, Numbers, OpenApi, Otherwise, Parameter,
        ParameterPlace, ParameterStyle, SchemaSource,
    },
};
use control_plane_wire::proto::{self, body_content::Described};
use proptest::{collection::btree_map, option::of, prelude::*, sample::select};

use super::{mode, number};
use crate::{
    invalid::{UNKNOWN, refused},
    strategies::text,
};

const POLICY: &str = "policy/request-validation/shop/cart";

fn json_text() -> impl Strategy<Value = JsonText> {
    text("\\{\"[a-z]{1,6}\": [0-9]{1,3}\\}").prop_map(JsonText::from)
}

fn otherwise() -> impl Strategy<Value = Otherwise> {
    select(vec![Otherwise::Reject, Otherwise::Pass])
}

fn source(resources: Arc<BTreeMap<Arc<str>, JsonText>>) -> impl Strategy<Value = Arc<SchemaSource>> {
    let draft = select(vec![Draft::Draft4, Draft::Draft6, Draft::Draft7, Draft::Draft201909, Draft::Draft202012]);
    let formats = select(vec![Formats::ByDraft, Formats::Assert, Formats::Annotate]);
    (json_text(), draft, formats).prop_map(move |(schema, draft, formats)| {
        Arc::new(SchemaSource { schema, resources: resources.clone(), draft, formats })
    })
}

fn content(resources: Arc<BTreeMap<Arc<str>, JsonText>>) -> impl Strategy<Value = Content> {
    prop_oneof![Just(Content::Unchecked), of(source(resources)).prop_map(Content::Checked)]
}

fn parameter(resources: Arc<BTreeMap<Arc<str>, JsonText>>) -> impl Strategy<Value = Arc<Parameter>> {
    let place = select(vec![ParameterPlace::Query, ParameterPlace::Header, ParameterPlace::Cookie]);
    let style = select(vec![
        ParameterStyle::Form,
        ParameterStyle::Simple,
        ParameterStyle::SpaceDelimited,
        ParameterStyle::PipeDelimited,
        ParameterStyle::DeepObject,
    ]);
    let all = (place, text("\\PC{1,8}"), any::<bool>(), of(style), of(any::<bool>()), of(source(resources)));
    all.prop_map(|(place, name, required, style, explode, schema)| {
        Arc::new(Parameter { place, name, required, style, explode, schema })
    })
}

fn openapi() -> impl Strategy<Value = Arc<OpenApi>> {
    (json_text(), text("(/[a-z]{1,4}){0,2}"), otherwise())
        .prop_map(|(document, base_path, unmatched)| Arc::new(OpenApi { document, base_path, unmatched }))
}

pub fn settings() -> BoxedStrategy<ValidationSettings> {
    let resources = || btree_map(text("http://[a-z]{1,6}/"), json_text(), 0..3).prop_map(Arc::new);
    // Of different policies, as they are after merging.
    let bodies = (resources(), of(any::<bool>()), of(number())).prop_flat_map(|(resources, required, max_bytes)| {
        btree_map(text("[a-z]{1,6}/[a-z]{1,6}"), content(resources), 0..3).prop_map(move |content| BodySettings {
            required,
            max_bytes,
            content,
        })
    });
    let parameters = resources().prop_flat_map(|resources| btree_map(text("[a-z]{1,8}"), parameter(resources), 0..3));
    let status = select(vec![InvalidStatus::BadRequest, InvalidStatus::UnprocessableContent]);
    let numbers = select(vec![Numbers::Exact, Numbers::Nearest]);
    let scalars =
        (of(any::<bool>()), of(mode()), of(status), of(otherwise()), of(otherwise()), of(1..=256_u16), of(numbers));
    (scalars, bodies, parameters, of(openapi()))
        .prop_map(|(scalars, body, parameters, openapi)| {
            let (disabled, mode, status, unknown_media_types, unknown_query, max_depth, numbers) = scalars;
            ValidationSettings {
                disabled,
                mode,
                status,
                unknown_media_types,
                unknown_query,
                max_depth,
                numbers,
                body,
                parameters,
                openapi,
            }
        })
        .boxed()
}

fn wire(settings: proto::RequestValidationSettings) -> proto::Policy {
    let policy = proto::RequestValidationPolicy { settings: Some(settings), overrides: None };
    proto::Policy { spec: Some(proto::policy::Spec::RequestValidation(policy)) }
}

fn with_schema(schema: proto::SchemaSource) -> proto::Policy {
    wire(proto::RequestValidationSettings {
        content: vec![proto::BodyContent {
            media_type: "a/b".into(),
            described: Some(Described::Checked(proto::CheckedBody { schema: Some(schema) })),
        }],
        resources: vec![proto::SchemaResources::default()],
        ..proto::RequestValidationSettings::default()
    })
}

#[test]
fn a_choice_or_a_number_that_is_not_known_is_refused_by_its_field() {
    let settings = proto::RequestValidationSettings::default;
    let at = |field: &str, what: &str| format!("request_validation.settings.{field}: {what}");
    refused(POLICY, &wire(proto::RequestValidationSettings { status: 9, ..settings() }), &at("status", UNKNOWN));
    refused(POLICY, &wire(proto::RequestValidationSettings { numbers: 9, ..settings() }), &at("numbers", UNKNOWN));
    let otherwise = proto::RequestValidationSettings { unknown_query: 9, ..settings() };
    refused(POLICY, &wire(otherwise), &at("unknown_query", UNKNOWN));
    for depth in [0, 257] {
        let wrong = proto::RequestValidationSettings { max_depth: Some(depth), ..settings() };
        refused(POLICY, &wire(wrong), &at("max_depth", &format!("{depth} is not between 1 and 256")));
    }
    let bytes = proto::RequestValidationSettings { max_bytes: Some(0), ..settings() };
    refused(POLICY, &wire(bytes), &at("max_bytes", "is 0"));
    let openapi = |document: &str, base_path: &str, unmatched| {
        let openapi = proto::OpenApi { document: document.into(), base_path: base_path.into(), unmatched };
        wire(proto::RequestValidationSettings { openapi: Some(openapi), ..settings() })
    };
    refused(POLICY, &openapi("", "", 1), &at("openapi.document", "is empty"));
    refused(POLICY, &openapi("{}", "", 0), &at("openapi.unmatched", UNKNOWN));
    for path in ["a", "/a/"] {
        let what = at("openapi.base_path", "does not begin with a slash, or ends with one");
        refused(POLICY, &openapi("{}", path, 1), &what);
    }
}

#[test]
fn a_schema_without_its_text_its_draft_or_its_documents_is_refused() {
    let valid = proto::SchemaSource { schema: "{}".into(), resources: 0, draft: 5, formats: 1 };
    let at = |field: &str, what: &str| format!("request_validation.settings.content[0].checked.schema.{field}: {what}");
    for (wrong, field, what) in [
        (proto::SchemaSource { schema: String::new(), ..valid.clone() }, "schema", "is empty"),
        (proto::SchemaSource { resources: 1, ..valid.clone() }, "resources", "1 is no set of documents"),
        (proto::SchemaSource { draft: 0, ..valid.clone() }, "draft", UNKNOWN),
        (proto::SchemaSource { formats: 9, ..valid }, "formats", UNKNOWN),
    ] {
        refused(POLICY, &with_schema(wrong), &at(field, what));
    }
}

#[test]
fn a_parameter_without_a_place_or_a_name_is_refused() {
    let valid = proto::Parameter { key: "page".into(), place: 1, name: "page".into(), ..proto::Parameter::default() };
    for (wrong, field, what) in [
        (proto::Parameter { key: String::new(), ..valid.clone() }, "key", "is empty"),
        (proto::Parameter { name: String::new(), ..valid.clone() }, "name", "is empty"),
        (proto::Parameter { place: 0, ..valid.clone() }, "place", UNKNOWN),
        (proto::Parameter { style: 9, ..valid }, "style", UNKNOWN),
    ] {
        let wrong = wire(proto::RequestValidationSettings {
            parameters: vec![wrong],
            ..proto::RequestValidationSettings::default()
        });
        refused(POLICY, &wrong, &format!("request_validation.settings.parameters[0].{field}: {what}"));
    }
}

#[test]
fn a_policy_of_another_kind_than_its_key_is_refused() {
    let wrong = wire(proto::RequestValidationSettings::default());
    refused("policy/rate-limit/shop/cart", &wrong, "spec: is of another kind than its key");
}
