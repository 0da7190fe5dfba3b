//! From a document's tree to a typed object, strictly: every unknown field and every wrong type is told with its
//! path (`spec.rules[0].matches`) and its place in the file.
//!
//! Invariant: no message holds a value of the document, as it may be a Secret's.

use std::{cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, Expected, IntoDeserializer as _, MapAccess, SeqAccess, Unexpected, Visitor},
    forward_to_deserialize_any,
};

use crate::node::{Entry, Node, Position, Value};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Its path from the document's root; empty for the root.
    pub field: String,
    /// Its place: the key's for an unknown field, else the value's.
    pub position: Position,
    /// What is wrong.
    pub message: String,
}

/// Reads `document` as a `T`. At the root, `apiVersion` and `kind` are never unknown, and `status` is left out, as the
/// API server leaves it out of what users write.
///
/// # Errors: every unknown field, and the first field of a wrong type or missing field.
pub fn decode<'de, T: Deserialize<'de>>(document: &'de Node) -> Result<T, Vec<FieldError>> {
    let unknown = RefCell::default();
    let root = Path { parent: None, step: Step::Root };
    let cursor = Cursor { node: document, key: document.position, path: &root, unknown: &unknown };
    let decoded = T::deserialize(cursor).map_err(|error| error.at(&root, document.position));
    let mut errors = unknown.into_inner();
    match decoded {
        Ok(object) if errors.is_empty() => Ok(object),
        Ok(_) => Err(errors),
        Err(error) => {
            errors.extend(error.place.map(|(field, position)| FieldError { field, position, message: error.message }));
            Err(errors)
        }
    }
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(formatter)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Index(index) => write!(formatter, "[{index}]"),
            Step::Key(key) => {
                let dot = if self.parent.is_some_and(|parent| parent.parent.is_some()) { "." } else { "" };
                let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
                if plain { write!(formatter, "{dot}{key}") } else { write!(formatter, "[{key:?}]") }
            }
        }
    }
}

#[derive(Debug)]
struct DecodeError {
    message: String,
    place: Option<(String, Position)>,
}

impl DecodeError {
    /// Sets the place, unless a deeper one is known.
    fn at(mut self, path: &Path<'_>, position: Position) -> Self {
        self.place.get_or_insert_with(|| (path.to_string(), position));
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), place: None }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("want {}, found {}", plain(expected), kind_of(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("want {}, found another {}", plain(expected), kind_of(unexpected)))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("want one of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("required field {field} is missing"))
    }
}

/// Serde's names for what is expected, in the words of a YAML file.
fn plain(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a sequence" => "a list".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "u8" | "u32" | "u64" => "a whole number from 0 on".to_owned(),
        struct_name if struct_name.starts_with("struct ") => "a map".to_owned(),
        _ => text,
    }
}

fn kind_of(unexpected: Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "whole number",
        Unexpected::Float(_) => "number",
        Unexpected::Str(_) | Unexpected::Char(_) => "text",
        Unexpected::Seq => "list",
        Unexpected::Map => "map",
        Unexpected::Unit | Unexpected::Option => "null",
        _ => "value",
    }
}

/// One node on the way through the document.
#[derive(Clone, Copy)]
struct Cursor<'de, 'p> {
    node: &'de Node,
    /// Where its key stands; where it stands itself outside of maps.
    key: Position,
    path: &'p Path<'p>,
    unknown: &'p RefCell<Vec<FieldError>>,
}

impl<'de> Cursor<'de, '_> {
    fn list<V: Visitor<'de>>(self, items: &'de [Node], visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Items { rest: items.iter().enumerate(), path: self.path, unknown: self.unknown })
    }

    fn map<V: Visitor<'de>>(self, entries: &'de [Entry], visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_map(Entries { rest: entries.iter(), current: None, path: self.path, unknown: self.unknown })
    }
}

impl<'de> Deserializer<'de> for Cursor<'de, '_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => self.list(items, visitor),
            Value::Map(entries) => self.map(entries, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    // The Kubernetes API reads an empty value as an absent one.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::Null => self.list(&[], visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.node.value {
            Value::Null => self.map(&[], visitor),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Map(entries) => visitor.visit_enum(de::value::MapAccessDeserializer::new(Entries {
                rest: entries.iter(),
                current: None,
                path: self.path,
                unknown: self.unknown,
            })),
            _ => Err(de::Error::custom("want a word")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let message = "unknown field".to_owned();
        self.unknown.borrow_mut().push(FieldError { field: self.path.to_string(), position: self.key, message });
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'de, 'p> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    path: &'p Path<'p>,
    unknown: &'p RefCell<Vec<FieldError>>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        let path = Path { parent: Some(self.path), step: Step::Index(index) };
        let cursor = Cursor { node, key: node.position, path: &path, unknown: self.unknown };
        seed.deserialize(cursor).map(Some).map_err(|error| error.at(&path, node.position))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Entries<'de, 'p> {
    rest: std::slice::Iter<'de, Entry>,
    current: Option<&'de Entry>,
    path: &'p Path<'p>,
    unknown: &'p RefCell<Vec<FieldError>>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let is_root = self.path.parent.is_none();
        let Some(entry) =
            self.rest.find(|entry| !(is_root && matches!(entry.key.as_str(), "apiVersion" | "kind" | "status")))
        else {
            return Ok(None);
        };
        self.current = Some(entry);
        seed.deserialize(de::value::BorrowedStrDeserializer::new(&entry.key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.current.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let path = Path { parent: Some(self.path), step: Step::Key(&entry.key) };
        let cursor = Cursor { node: &entry.value, key: entry.position, path: &path, unknown: self.unknown };
        seed.deserialize(cursor).map_err(|error| error.at(&path, entry.value.position))
    }

    fn size_hint(&self) -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::node::parse, *};

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    struct Sample {
        spec: Spec,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        port: u16,
        #[serde(default)]
        labels: BTreeMap<String, String>,
        mode: Option<Mode>,
        #[serde(default)]
        rules: Vec<Rule>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    enum Mode {
        Fast,
        Slow,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Rule {
        name: String,
    }

    fn errors(text: &str) -> Vec<String> {
        let documents = parse(text).unwrap();
        let errors = decode::<Sample>(&documents[0]).unwrap_err();
        errors
            .iter()
            .map(|error| {
                format!("{}:{} {}: {}", error.position.line, error.position.column, error.field, error.message)
            })
            .collect()
    }

    #[test]
    fn every_unknown_field_is_told_with_its_path_and_place() {
        let text = "apiVersion: v1\nkind: Sample\nspec:\n  port: 80\n  prot: 81\n  rules:\n  - name: a\n    x/y: 1\n";
        assert_eq!(errors(text), ["5:3 spec.prot: unknown field", "8:5 spec.rules[0][\"x/y\"]: unknown field"]);
    }

    #[test]
    fn wrong_types_and_missing_fields_are_told_at_their_place_and_never_show_the_value() {
        for (text, want) in [
            ("spec:\n  port: hunter2\n", "2:9 spec.port: want a whole number from 0 to 65535, found text"),
            (
                "spec:\n  port: 70000\n",
                "2:9 spec.port: want a whole number from 0 to 65535, found another whole number",
            ),
            ("spec:\n  port: 1\n  labels: {a: 1}\n", "3:15 spec.labels.a: want a string, found whole number"),
            ("spec:\n  port: 1\n  mode: Quick\n", "3:9 spec.mode: want one of Fast, Slow"),
            ("spec:\n  port: 1\n  rules: {}\n", "3:10 spec.rules: want a list, found map"),
            ("spec:\n  port: 1\n  rules:\n  - {}\n", "4:5 spec.rules[0]: required field name is missing"),
            ("spec: text\n", "1:7 spec: want a map, found text"),
            ("kind: Sample\n", "1:1 : required field spec is missing"),
        ] {
            assert_eq!(errors(text), [want], "{text}");
        }
    }

    #[test]
    fn an_empty_value_is_an_absent_one() {
        let documents = parse("spec:\n  port: 80\n  labels:\n  mode:\n  rules:\n").unwrap();
        let spec = Spec { port: 80, labels: BTreeMap::new(), mode: None, rules: Vec::new() };
        assert_eq!(decode::<Sample>(&documents[0]).unwrap(), Sample { spec });
    }
}
