//! Measures what a body of 1 KiB costs: strict JSON, then the schema.
//!
//! `cargo run --release -p policy-schema --example cost`

use std::hint::black_box;
use std::io::Write;

use policy_schema::{Options, Schema, TextLimits, parse};
use serde_json::{Value, json};

const ROUNDS: u32 = 20_000;

#[expect(clippy::disallowed_methods, reason = "a measurement needs the clock")]
fn micros(mut work: impl FnMut()) -> f64 {
    // The best of several runs: the machine is shared.
    let runs = (0..7).map(|_| {
        let start = std::time::Instant::now();
        for _ in 0..ROUNDS {
            work();
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
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
        ("serde_json", micros(|| drop(black_box(serde_json::from_slice::<Value>(black_box(body)))))),
        ("strict parse", micros(|| drop(black_box(parse(black_box(body), &limits))))),
        ("schema, valid", micros(|| drop(black_box(schema.validate(black_box(&value)))))),
        ("schema, one violation", micros(|| drop(black_box(schema.validate(black_box(&wrong)))))),
        (
            "parse and schema",
            micros(|| drop(black_box(parse(black_box(body), &limits).map(|value| schema.validate(&value))))),
        ),
    ];
    let mut out = std::io::stdout();
    writeln!(out, "{} bytes", body.len())?;
    for (name, cost) in rows {
        writeln!(out, "{name:24}{cost:8.2} us")?;
    }
    Ok(())
}
