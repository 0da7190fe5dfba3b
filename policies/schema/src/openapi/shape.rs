//! What type of value a parameter's text stands for, as far as its schema says.

use std::collections::BTreeMap;

use serde_json::Value;

use super::translate::local;
use crate::json::{self, Limits};

/// How deep a schema is looked into, references and alternatives included.
const MAX_DEPTH: usize = 16;

/// The types that a schema allows. None means that it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    boolean: bool,
    number: bool,
    null: bool,
    string: bool,
    array: bool,
    object: bool,
    pub(crate) items: Option<Box<Shape>>,
    pub(crate) properties: BTreeMap<String, Shape>,
    /// Of properties that are not named, where the schema asks for some.
    pub(crate) additional: Option<Box<Shape>>,
}

/// How a parameter is cut into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Primitive,
    Array,
    Object,
}

impl Shape {
    /// `schema` is in `document`, which its references are to.
    pub(crate) fn of(document: &Value, schema: &Value) -> Self {
        Self::within(document, schema, MAX_DEPTH)
    }

    fn within(document: &Value, schema: &Value, depth: usize) -> Self {
        let mut shape = Self::default();
        let (Some(depth), Value::Object(keywords)) = (depth.checked_sub(1), schema) else { return shape };
        let nested = |schema: &Value| Self::within(document, schema, depth);
        match keywords.get("type") {
            Some(Value::String(name)) => shape.allow(name),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(|name| shape.allow(name)),
            _ => {
                let constant = keywords.get("const");
                let listed = keywords.get("enum").and_then(Value::as_array);
                constant.into_iter().chain(listed.into_iter().flatten()).for_each(|value| shape.allow_value(value));
            }
        }
        shape.items = keywords.get("items").map(|items| Box::new(nested(items)));
        if let Some(Value::Object(properties)) = keywords.get("properties") {
            shape.properties = properties.iter().map(|(name, schema)| (name.clone(), nested(schema))).collect();
        }
        let additional = keywords.get("additionalProperties").filter(|value| **value != Value::Bool(false));
        shape.additional = additional.map(|schema| Box::new(nested(schema)));
        if shape.says_nothing() {
            shape.array = shape.items.is_some();
            shape.object = !shape.properties.is_empty() || shape.additional.is_some();
        }
        let reference = keywords.get("$ref").and_then(Value::as_str);
        if let Some(target) = reference.and_then(|reference| document.pointer(&local(reference, "").ok()?)) {
            shape.narrow(nested(target));
        }
        for schema in keywords.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            shape.narrow(nested(schema));
        }
        for keyword in ["anyOf", "oneOf"] {
            let alternatives = keywords.get(keyword).and_then(Value::as_array).into_iter().flatten();
            let mut union: Option<Self> = None;
            for alternative in alternatives.map(nested) {
                union = Some(match union {
                    Some(union) => union.or(alternative),
                    None => alternative,
                });
            }
            shape.narrow(union.unwrap_or_default());
        }
        shape
    }

    fn allow(&mut self, name: &str) {
        match name {
            "boolean" => self.boolean = true,
            "number" | "integer" => self.number = true,
            "null" => self.null = true,
            "string" => self.string = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => {}
        }
    }

    fn allow_value(&mut self, value: &Value) {
        self.allow(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
    }

    fn says_nothing(&self) -> bool {
        !(self.boolean || self.number || self.null || self.string || self.array || self.object)
    }

    /// Both apply. Where both name types, the narrower are the first's, as far as a text can tell.
    fn narrow(&mut self, other: Self) {
        if self.says_nothing() {
            (self.boolean, self.number, self.null) = (other.boolean, other.number, other.null);
            (self.string, self.array, self.object) = (other.string, other.array, other.object);
        }
        self.items = self.items.take().or(other.items);
        self.additional = self.additional.take().or(other.additional);
        for (name, shape) in other.properties {
            self.properties.entry(name).or_default().narrow(shape);
        }
    }

    /// One of the two applies.
    fn or(mut self, other: Self) -> Self {
        if self.says_nothing() || other.says_nothing() {
            (self.boolean, self.number, self.null) = (false, false, false);
            (self.string, self.array, self.object) = (false, false, false);
        } else {
            self.boolean |= other.boolean;
            self.number |= other.number;
            self.null |= other.null;
            self.string |= other.string;
            self.array |= other.array;
            self.object |= other.object;
        }
        self.items = self.items.or(other.items);
        self.additional = self.additional.or(other.additional);
        for (name, shape) in other.properties {
            let merged = match self.properties.remove(&name) {
                Some(known) => known.or(shape),
                None => shape,
            };
            self.properties.insert(name, merged);
        }
        self
    }

    pub(crate) fn form(&self) -> Form {
        if self.array {
            Form::Array
        } else if self.object {
            Form::Object
        } else {
            Form::Primitive
        }
    }

    /// The value that a text stands for: a number or a boolean where the schema allows one and the text is one, null where
    /// it allows no string and the text is empty, else the text. The schema judges what comes out.
    pub(crate) fn value(&self, text: String) -> Value {
        if self.number
            && let Ok(number @ Value::Number(_)) = json::parse(text.as_bytes(), &Limits::default())
            && text.trim() == text
        {
            return number;
        }
        match text.as_str() {
            "true" if self.boolean => Value::Bool(true),
            "false" if self.boolean => Value::Bool(false),
            "" if self.null && !self.string => Value::Null,
            _ => Value::String(text),
        }
    }

    pub(crate) fn item(&self, text: String) -> Value {
        self.items.as_ref().map_or_else(|| Value::String(text.clone()), |items| items.value(text.clone()))
    }

    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.additional.as_deref())
    }
}
