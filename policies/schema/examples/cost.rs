//! Measures what a body of 1 KiB costs: strict JSON, then the schema; and how long larger ones hold up a thread, those that
//! take every step that a validation may take among them.
//!
//! `cargo run --release -p policy-schema --example cost`

use std::hint::black_box;
use std::io::Write;

use policy_schema::{Options, Schema, TextLimits, parse};
use serde_json::{Value, json};

const ROUNDS: u32 = 20_000;

#[expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]
fn micros(rounds: u32, mut work: impl FnMut()) -> f64 {
    // The best of several runs: the machine is shared.
    let runs = (0..7).map(|_| {
        let start = std::time::Instant::now();
        for _ in 0..rounds {
            work();
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
    });
    runs.fold(f64::INFINITY, f64::min)
}

fn order() -> Value {
    let line = |index: u32| json!({"sku": format!("sku-{index:06}"), "quantity": index + 1, "price": f64::from(index) * 1.25, "gift": index.is_multiple_of(2)});
    json!({
        "id": "7f9c24e5-1f0f-4f0e-9a56-0a4c3f1b2d3e",
        "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "address": {"street": "12 St James's Square",
            "city": "London", "zip": "SW1Y 4JH", "country": "GB"}},
        "lines": (0..10).map(line).collect::<Vec<_>>(),
        "note": "Ring twice. ".repeat(16),
        "express": false,
    })
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["id", "customer", "lines"],
        "additionalProperties": false,
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
            "customer": {"$ref": "#/$defs/customer"},
            "lines": {"type": "array", "minItems": 1, "maxItems": 100, "items": {"$ref": "#/$defs/line"}},
            "note": {"type": "string", "maxLength": 200},
            "express": {"type": "boolean"},
        },
        "$defs": {
            "customer": {"type": "object", "required": ["name", "email"], "properties": {
                "name": {"type": "string", "minLength": 1}, "email": {"type": "string", "format": "email"},
                "address": {"type": "object", "required": ["city", "country"], "properties": {
                    "street": {"type": "string"}, "city": {"type": "string"}, "zip": {"type": "string", "maxLength": 12},
                    "country": {"enum": ["DE", "FR", "GB", "US"]}}}}},
            "line": {"type": "object", "required": ["sku", "quantity"], "additionalProperties": false, "properties": {
                "sku": {"type": "string", "pattern": "^sku-[0-9]{6}$"}, "quantity": {"type": "integer", "minimum": 1},
                "price": {"type": "number", "minimum": 0}, "gift": {"type": "boolean"}}},
        },
    })
}

/// Bodies of up to 1 MiB: orders, numbers, and one that a schema with `uniqueItems` and alternatives makes the most of.
fn long_bodies(out: &mut impl Write) -> std::io::Result<()> {
    let limits = TextLimits { bytes: 4 << 20, ..TextLimits::default() };
    let compile =
        |schema: &Value| Schema::compile(schema, None, &[], &Options::default()).map_err(std::io::Error::other);
    let mut order_schema = schema();
    if let Value::Object(members) = &mut order_schema {
        // So that its references are to itself.
        members.insert("$id".to_owned(), json!("https://schemas.example/order"));
    }
    let orders = compile(&json!({"type": "array", "items": order_schema}))?;
    let numbers = compile(&json!({"items": {"type": "integer"}}))?;
    let alternatives: Vec<Value> = (0..64).map(|index| json!({"minimum": 1000 + index})).collect();
    let worst = compile(&json!({"items": {"anyOf": alternatives}}))?;
    for kib in [16, 64, 256, 1024] {
        let one = order().to_string();
        let text = format!("[{}]", vec![one.as_str(); kib * 1024 / one.len()].join(","));
        let digits = format!("[{}]", vec!["1"; kib * 512].join(","));
        let last = format!("[{}]", vec!["99"; kib * 341].join(","));
        for (name, schema, text) in [("orders", &orders, text), ("numbers", &numbers, digits), ("worst", &worst, last)]
        {
            let check =
                || drop(black_box(parse(black_box(text.as_bytes()), &limits).map(|value| schema.validate(&value))));
            writeln!(out, "{kib:5} KiB of {name:16}{:8.2} ms", micros(1, check) / 1e3)?;
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let body = order().to_string();
    let body = body.as_bytes();
    let limits = TextLimits::default();
    let schema = Schema::compile(&schema(), None, &[], &Options::default()).map_err(std::io::Error::other)?;
    let value = parse(body, &limits).map_err(std::io::Error::other)?;
    let mut wrong = value.clone();
    if let Some(quantity) = wrong.pointer_mut("/lines/7/quantity") {
        *quantity = json!(0);
    }
    let rows = [
        ("serde_json", micros(ROUNDS, || drop(black_box(serde_json::from_slice::<Value>(black_box(body)))))),
        ("strict parse", micros(ROUNDS, || drop(black_box(parse(black_box(body), &limits))))),
        ("schema, valid", micros(ROUNDS, || drop(black_box(schema.validate(black_box(&value)))))),
        ("schema, one violation", micros(ROUNDS, || drop(black_box(schema.validate(black_box(&wrong)))))),
        (
            "parse and schema",
            micros(ROUNDS, || drop(black_box(parse(black_box(body), &limits).map(|value| schema.validate(&value))))),
        ),
    ];
    let mut out = std::io::stdout();
    writeln!(out, "{} bytes", body.len())?;
    for (name, cost) in rows {
        writeln!(out, "{name:24}{cost:8.2} us")?;
    }
    long_bodies(&mut out)
}
