//! What a schema refuses to be, and what it says about an instance.

use std::fmt::Write;

use policy_schema::problem::{Problem, Status};
use policy_schema::{Draft, Formats, LIMIT, Limits, Options, Patterns, Schema, SchemaError, TextLimits, parse};
use proptest::prelude::*;
use serde_json::{Value, json};

/// See `Limits::nesting`, less the innermost and its reference.
const IN_PLACE: usize = 62;

fn compile(schema: &Value) -> Result<Schema, SchemaError> {
    Schema::compile(schema, None, &[], &Options::default())
}

fn violations(schema: &Value, instance: &Value) -> Vec<[String; 4]> {
    let found = compile(schema).unwrap().validate(instance).unwrap_err();
    let row = |violation: &policy_schema::Violation| {
        [&violation.instance, &violation.schema, &violation.keyword, &violation.message].map(Clone::clone)
    };
    found.entries().iter().map(row).collect()
}

#[test]
fn a_schema_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Schema>();
    shared::<policy_schema::openapi::Document>();
}

#[test]
fn a_violation_says_where_and_what_without_the_value() {
    let schema = json!({
        "type": "object",
        "properties": {
            "age": {"$ref": "#/$defs/a~1ge%20%25"},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}, "uniqueItems": true},
            "kind": {"enum": ["secret-a", "secret-b"]},
        },
        "required": ["id"],
        "additionalProperties": false,
        "$defs": {"a/ge %": {"type": "integer", "minimum": 18}},
    });
    let instance = json!({"age": 7, "tags": ["hunter2", "ok"], "kind": "hunter2", "hunter": "hunter2", "x/y": 1});
    let mut found = violations(&schema, &instance);
    found.sort();
    let expected = [
        ["", "#/required", "required", "the property id is missing"],
        ["/age", "#/$defs/a~1ge%20%25/minimum", "minimum", "must be at least 18"],
        ["/hunter", "#/additionalProperties", "additionalProperties", "property is not allowed"],
        ["/kind", "#/properties/kind/enum", "enum", "is not among the allowed values"],
        ["/tags/0", "#/properties/tags/items/pattern", "pattern", "must match the pattern ^[a-z]+$"],
        ["/x~1y", "#/additionalProperties", "additionalProperties", "property is not allowed"],
    ];
    assert_eq!(found, expected.map(|row| row.map(str::to_owned)));
    assert!(!format!("{found:?}").contains("hunter2"));
}

#[test]
fn no_message_contains_a_value() {
    let marker = "S3CR3T";
    let text = json!(marker);
    let nested = json!({"a": marker, "b": [marker]});
    for (schema, instance) in [
        (json!({"type": ["integer", "null"]}), &text),
        (json!({"const": 1}), &text),
        (json!({"enum": [1]}), &text),
        (json!({"maxLength": 1}), &text),
        (json!({"minLength": 100}), &text),
        (json!({"pattern": "^x"}), &text),
        (json!({"not": {}}), &nested),
        (json!(false), &nested),
        (json!({"anyOf": [{"type": "null"}, {"type": "integer"}]}), &nested),
        (json!({"oneOf": [{"type": "null"}, {"type": "integer"}]}), &nested),
        (json!({"oneOf": [{}, {}]}), &nested),
        (json!({"properties": {"b": {"uniqueItems": true, "maxItems": 0, "contains": {"type": "null"}}}}), &nested),
        (json!({"properties": {"b": {"prefixItems": [{}], "items": false, "unevaluatedItems": false}}}), &nested),
        (json!({"properties": {"b": {"unevaluatedItems": false}}}), &nested),
        (json!({"properties": {"a": {"minimum": 1, "format": "ipv4", "contentEncoding": "base64"}}}), &nested),
        (json!({"unevaluatedProperties": false}), &nested),
        (json!({"maxProperties": 0, "minProperties": 9, "dependentRequired": {"a": ["z"]}}), &nested),
    ] {
        let options = Options { formats: Formats::Assert, ..Options::default() };
        let schema = Schema::compile(&schema, None, &[], &options).unwrap();
        if let Err(violations) = schema.validate(instance) {
            assert!(!format!("{violations:?}").contains(marker), "{violations:?}");
            let problem = Problem::new(&violations, Status::BadRequest, 10).to_json();
            assert!(!problem.to_string().contains(marker), "{problem}");
        }
    }
}

#[test]
fn the_list_is_capped_and_says_that_there_are_more() {
    let schema = compile(&json!({"items": {"type": "string"}})).unwrap();
    let found = schema.validate(&json!(vec![1; 16])).unwrap_err();
    assert_eq!((found.entries().len(), found.more()), (16, false));
    let found = schema.validate(&json!(vec![1; 500_000])).unwrap_err();
    assert_eq!((found.entries().len(), found.more()), (16, true));
    assert_eq!(found.entries()[15].instance, "/15");
    let problem = Problem::new(&found, Status::UnprocessableContent, 3).to_json();
    assert_eq!(problem["status"], 422);
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3);
    assert_eq!(problem["more"], true);
}

#[test]
fn a_problem_has_pointers_and_keywords() {
    let found = compile(&json!({"properties": {"a b": {"type": "string"}}})).unwrap();
    let found = found.validate(&json!({"a b": 1})).unwrap_err();
    assert_eq!(
        Problem::new(&found, Status::BadRequest, 10).to_json(),
        json!({
            "title": "The request does not satisfy the schema",
            "status": 400,
            "errors": [{
                "in": "body", "pointer": "#/a%20b", "keyword": "type", "schema": "#/properties/a%20b/type",
                "detail": "must be of type string",
            }],
        })
    );
}

#[test]
fn nothing_is_fetched() {
    for (schema, reference, location) in [
        (json!({"$ref": "http://169.254.169.254/latest"}), "http://169.254.169.254/latest", "#/$ref"),
        (json!({"items": {"$ref": "file:///etc/passwd"}}), "file:///etc/passwd", "#/items/$ref"),
        (json!({"not": {"$ref": "other.json#/a"}}), "other.json#/a", "#/not/$ref"),
        (json!({"not": {"$ref": "#/a b"}}), "#/a b", "#/not/$ref"),
        (json!({"properties": {"a": {"$ref": "#/$defs/none"}}}), "#/$defs/none", "#/properties/a/$ref"),
        (json!({"allOf": [{"$ref": "#nowhere"}]}), "#nowhere", "#/allOf/0/$ref"),
    ] {
        let error = compile(&schema).unwrap_err();
        let expected = SchemaError::Unresolved { reference: reference.to_owned(), location: location.to_owned() };
        assert_eq!(error, expected, "{schema}");
    }
    let error = compile(&json!({"$schema": "https://example.com/mine"})).unwrap_err();
    assert_eq!(error, SchemaError::Dialect { uri: "https://example.com/mine".to_owned() });
}

#[test]
fn given_documents_resolve_and_are_named_in_locations() {
    let address = json!({"$defs": {"zip": {"type": "string"}}, "properties": {"zip": {"$ref": "#/$defs/zip"}}});
    let schema = json!({"properties": {"home": {"$ref": "https://example.com/address"}}});
    let resources = [("https://example.com/address", &address)];
    let schema = Schema::compile(&schema, None, &resources, &Options::default()).unwrap();
    let found = schema.validate(&json!({"home": {"zip": 1}})).unwrap_err();
    assert_eq!(found.entries()[0].schema, "https://example.com/address#/$defs/zip/type");
    assert_eq!(found.entries()[0].instance, "/home/zip");
    for names in [&["relative"][..], &["https://example.com/a#b"], &["https://e.com/", "https://e.com/"]] {
        let resources: Vec<(&str, &Value)> = names.iter().map(|name| (*name, &address)).collect();
        let error = Schema::compile(&json!({}), None, &resources, &Options::default()).unwrap_err();
        assert!(matches!(error, SchemaError::Resource { .. }), "{error}");
    }
}

#[test]
fn an_identified_schema_has_locations_within_it() {
    let schema = json!({"$id": "https://example.com/root", "properties": {"a": {"type": "string"}}});
    assert_eq!(violations(&schema, &json!({"a": 1}))[0][1], "#/properties/a/type");
}

#[test]
fn an_invalid_schema_is_refused_with_its_place() {
    for (schema, draft, expected) in [
        (json!({"properties": {"a": {"type": "strin"}}}), None, "#/properties/a/type"),
        (json!({"minimum": "1"}), Some(Draft::Draft4), "#/minimum"),
        (json!({"required": []}), Some(Draft::Draft4), "#/required"),
        (json!({"exclusiveMinimum": true}), Some(Draft::Draft7), "#/exclusiveMinimum"),
        (json!({"items": {"pattern": "("}}), Some(Draft::Draft201909), "#/items/pattern"),
    ] {
        match Schema::compile(&schema, draft, &[], &Options::default()).unwrap_err() {
            SchemaError::Invalid { location, .. } => assert_eq!(location, expected, "{schema}"),
            other => panic!("{schema}: {other}"),
        }
    }
}

#[test]
fn the_schema_field_decides_the_draft_before_the_argument() {
    let schema = json!({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": true});
    let schema = Schema::compile(&schema, Some(Draft::Draft202012), &[], &Options::default()).unwrap();
    assert!(schema.validate(&json!(1)).is_err());
    assert!(schema.validate(&json!(2)).is_ok());
}

#[test]
fn format_is_checked_by_choice() {
    let schema = json!({"format": "ipv4"});
    for (draft, formats, is_checked) in [
        (Draft::Draft7, Formats::ByDialect, true),
        (Draft::Draft202012, Formats::ByDialect, false),
        (Draft::Draft202012, Formats::Assert, true),
        (Draft::Draft4, Formats::Annotate, false),
    ] {
        let options = Options { formats, ..Options::default() };
        let schema = Schema::compile(&schema, Some(draft), &[], &options).unwrap();
        assert_eq!(schema.validate(&json!("300.1.1.1")).is_err(), is_checked, "{draft:?} {formats:?}");
    }
}

#[test]
fn a_reference_that_leads_back_to_itself_is_refused() {
    for schema in [
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"anyOf": [{"type": "null"}, {"$ref": "#"}]}),
        json!({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"not": {"allOf": [{"$ref": "#/$defs/a"}]}}}}),
    ] {
        assert!(matches!(compile(&schema), Err(SchemaError::Endless { .. })), "{schema}");
    }
    // One that descends into the instance ends with it.
    assert!(compile(&json!({"properties": {"next": {"$ref": "#"}}, "items": {"$ref": "#"}})).is_ok());
}

#[test]
fn a_bomb_of_references_is_refused() {
    let mut definitions = json!({"d30": {"type": "integer"}});
    for index in 0..30 {
        let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
        definitions[format!("d{index}")] = json!({"allOf": [next.clone(), next]});
    }
    let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
    assert!(matches!(compile(&schema), Err(SchemaError::FanOut { limit: 4096, .. })));
    let mut chain = json!({"d40": {}});
    for index in 0..40 {
        chain[format!("d{index}")] = json!({"$ref": format!("#/$defs/d{}", index + 1)});
    }
    let schema = json!({"$ref": "#/$defs/d0", "$defs": chain});
    assert!(matches!(compile(&schema), Err(SchemaError::References { limit: 32, .. })));
}

#[test]
fn size_and_depth_of_a_schema_have_limits() {
    let limits = Limits { nodes: 10, depth: 4, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    let compile = |schema: &Value| Schema::compile(schema, None, &[], &options);
    assert_eq!(compile(&json!({"enum": [1, 2, 3, 4, 5, 6, 7, 8, 9]})).unwrap_err(), SchemaError::Size { limit: 10 });
    let mut deep = json!({});
    for _ in 0..5 {
        deep = json!({ "not": deep });
    }
    assert_eq!(compile(&deep).unwrap_err(), SchemaError::Depth { limit: 4 });
    assert!(compile(&json!({"not": {"type": "null"}})).is_ok());
}

#[test]
fn patterns_are_matched_in_linear_time_or_within_a_limit() {
    let evil = json!({"pattern": "^(a+)+$"});
    let instance = json!(format!("{}!", "a".repeat(100_000)));
    assert!(compile(&evil).unwrap().validate(&instance).is_err());
    let look_behind = json!({"pattern": "(?<=(a|a)+)b(?!c)$"});
    assert!(matches!(compile(&look_behind), Err(SchemaError::Invalid { .. })));
    let back_reference = json!({"pattern": "^(a|a)+\\1$"});
    let options = Options { patterns: Patterns::Backtracking(10_000), ..Options::default() };
    let schema = Schema::compile(&back_reference, None, &[], &options).unwrap();
    assert!(schema.validate(&json!("aa")).is_ok());
    assert!(schema.validate(&json!(format!("{}!", "a".repeat(60)))).is_err());
    let huge = json!({"pattern": "^((((a{1,100}){1,100}){1,100}){1,100})$"});
    assert!(matches!(compile(&huge), Err(SchemaError::Invalid { .. })));
    // What passwords are asked for.
    assert!(compile(&json!({"pattern": "^(?=.*[A-Z])(?=.*[0-9]).{8,}$"})).is_ok());
}

/// Expressions whose every level tries two alternatives that both descend.
fn expressions() -> Value {
    let branch = |operator: &str| {
        json!({
            "required": ["op"],
            "properties": {"op": {"const": operator}, "left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}},
        })
    };
    json!({"$ref": "#/$defs/e", "$defs": {"e": {"oneOf": [
        {"type": "integer"}, {"allOf": [branch("add")], "type": "object"}, {"allOf": [branch("mul")], "type": "object"},
    ]}}})
}

#[test]
fn alternatives_within_alternatives_end() {
    let schema = compile(&expressions()).unwrap();
    for (leaf, is_valid) in [(json!(1), true), (json!("x"), false)] {
        let mut instance = leaf;
        for _ in 0..60 {
            instance = json!({"op": "mul", "left": instance, "right": 2});
        }
        assert_eq!(schema.validate(&instance).is_ok(), is_valid);
    }
}

#[test]
fn a_validation_that_costs_too_much_is_ended() {
    let options = Options { limits: Limits { steps: 1000, ..Limits::default() }, ..Options::default() };
    let schema = Schema::compile(&json!({"items": {"type": "integer"}}), None, &[], &options).unwrap();
    assert!(schema.validate(&json!(vec![1; 100])).is_ok());
    let found = schema.validate(&json!(vec![1; 10_000])).unwrap_err();
    assert!(found.is_limit());
    assert_eq!(found.entries()[0].keyword, LIMIT);
    // What was found before the end stands.
    let mut late = vec![json!(1); 300];
    late[0] = json!("x");
    let found = schema.validate(&json!(late)).unwrap_err();
    assert_eq!((found.entries()[0].instance.as_str(), found.is_limit()), ("/0", false));
}

#[test]
fn a_long_name_is_cut_from_the_pointer() {
    let name = "n".repeat(100_000);
    let found = violations(&json!({"additionalProperties": {"type": "null"}}), &json!({ name: 1 }));
    assert_eq!(found[0][0], "");
}

fn instances() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(
                prop_oneof![Just("left".to_owned()), Just("right".to_owned()), Just("op".to_owned()), "[a-c]"],
                inner,
                0..4,
            )
            .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn counting_does_not_change_a_verdict(instance in instances(), which in 0usize..3) {
        let schemas = [
            expressions(),
            json!({"unevaluatedProperties": {"type": ["string", "array"]}, "properties": {"a": {"uniqueItems": true}},
                   "propertyNames": {"maxLength": 4}, "contains": {"type": "integer"}, "maxContains": 2}),
            json!({"if": {"type": "object"}, "then": {"minProperties": 1, "patternProperties": {"^[ab]$": {"type": "integer"}}},
                   "else": {"enum": [null, true, "a", [1], []]}}),
        ];
        let schema = &schemas[which];
        let plain = jsonschema::validator_for(schema).unwrap();
        let ours = compile(schema).unwrap();
        let verdict = ours.validate(&instance);
        prop_assert_eq!(verdict.is_ok(), plain.is_valid(&instance));
        if let Err(found) = verdict {
            prop_assert!(!found.is_limit());
            let pointers: Vec<String> = plain.iter_errors(&instance).map(|error| error.instance_path().to_string()).collect();
            for violation in found.entries().iter().filter(|violation| violation.keyword != "unevaluatedProperties") {
                prop_assert!(pointers.contains(&violation.instance));
            }
        }
    }

    #[test]
    fn no_schema_and_no_instance_panics(schema in schemas(), instance in instances()) {
        if let Ok(schema) = compile(&schema) {
            let _ = schema.validate(&instance);
        }
    }
}

/// Mostly schemas, often odd ones.
fn schemas() -> impl Strategy<Value = Value> {
    let keyword = prop::sample::select(vec![
        "$ref",
        "$id",
        "$anchor",
        "$dynamicRef",
        "allOf",
        "anyOf",
        "not",
        "items",
        "prefixItems",
        "properties",
        "required",
        "type",
        "pattern",
        "if",
        "then",
        "$defs",
        "dependentSchemas",
        "unevaluatedProperties",
        "enum",
        "minimum",
    ]);
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!(1)),
        prop::sample::select(vec!["#", "#/$defs/a", "#a", "a", "string", "(", "http://x/y", "%"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((keyword.clone(), inner.clone()), 0..4).prop_map(|members| {
                Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
            inner.prop_map(|inner| json!({"a": inner})),
        ]
    })
}

#[test]
fn the_deepest_recursion_that_the_limits_allow_fits_a_stack_of_2_mib() {
    // Each level of the instance goes through as many schemas as may be nested in one place.
    let mut schema = json!({"items": {"$ref": "#"}});
    for _ in 0..IN_PLACE {
        schema = json!({"allOf": [{"maxItems": 9}, schema], "anyOf": [{"maxItems": 1}, {"maxItems": 2}]});
    }
    let schema = compile(&schema).unwrap();
    let mut instance = json!("x");
    for _ in 0..64 {
        instance = json!([instance]);
    }
    assert!(schema.validate(&instance).is_ok());
    let mut wrong = json!([1, 2, 3]);
    for _ in 0..63 {
        wrong = json!([wrong]);
    }
    assert!(schema.validate(&wrong).is_err());
}

#[test]
fn a_deep_body_is_refused_before_the_schema_sees_it() {
    let mut text = String::new();
    for _ in 0..100 {
        write!(text, "[").unwrap();
    }
    assert!(parse(text.as_bytes(), &TextLimits::default()).is_err());
}
