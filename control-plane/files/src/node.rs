//! A YAML document as a tree in which every value knows its line and column.
//!
//! Scalars are read as JSON would read them, as the Kubernetes API does: `on` and `yes` are text, not booleans.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A place in a file. Line and column count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// A value with its place. Equal to another of the same value, wherever that stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it begins.
    pub position: Position,
}

/// What a YAML node holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A negative whole number.
    Integer(i64),
    /// A whole number from 0 on.
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order of the file, without repeated keys.
    Map(Vec<Entry>),
}

/// A key of a map with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub position: Position,
    /// The value.
    pub value: Node,
}

/// Text that is not YAML.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct SyntaxError {
    /// Where, if the parser knows.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
}

/// Parses every document of a file. Empty documents are left out.
///
/// # Errors: [`SyntaxError`] at the first place that is not YAML, or that repeats a key.
pub fn parse(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        // A file may hold thousands of routes. Its size is bounded already; what aliases make of it stays bounded.
        budget: serde_saphyr::budget! {
            max_documents: 1_000_000,
            max_nodes: 8_000_000,
            max_events: 32_000_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
    };
    let documents: Vec<Spanned<Value>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| syntax_error(&error))?;
    Ok(documents.into_iter().map(node).collect())
}

fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    let bare = error.without_snippet();
    let position = bare.location().map(position);
    let mut message = bare.to_string();
    // The place is told apart from the message.
    if let Some(cut) = message.rfind(" at line ") {
        message.truncate(cut);
    }
    if let Some(cut) = message.find(", set DuplicateKeyPolicy") {
        message.truncate(cut);
    }
    SyntaxError { position, message }
}

fn position(location: serde_saphyr::Location) -> Position {
    Position { line: location.line(), column: location.column() }
}

fn node(spanned: Spanned<Value>) -> Node {
    Node { value: spanned.value, position: position(spanned.referenced) }
}

impl Node {
    /// The entry of a map.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The value of a map's entry.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The text that the node holds.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value).map_or(Value::Integer(value), Value::Unsigned))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Value>>()? {
            nodes.push(node(item));
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = node(map.next_value::<Spanned<Value>>()?);
            entries.push(Entry { key: key.value, position: position(key.referenced), value });
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u64, column: u64) -> Position {
        Position { line, column }
    }

    #[test]
    fn lines_count_through_all_documents_of_a_file() {
        let documents = parse("a: 1\n---\n---\n# note\nb:\n  - c: text\n").unwrap();
        assert_eq!(documents.len(), 2);
        let entry = documents[1].entry("b").unwrap();
        assert_eq!(entry.position, at(5, 1));
        let Value::List(items) = &entry.value.value else { panic!("not a list") };
        let inner = items[0].entry("c").unwrap();
        assert_eq!((inner.position, inner.value.position), (at(6, 5), at(6, 8)));
    }

    #[test]
    fn words_of_older_yaml_stay_text() {
        let documents = parse("[on, no, 0755, true, -1, 1.5]").unwrap();
        let text = |text: &str| Value::Text(text.to_owned());
        let want = [text("on"), text("no"), text("0755"), Value::Bool(true), Value::Integer(-1), Value::Float(1.5)];
        let Value::List(items) = &documents[0].value else { panic!("not a list") };
        assert!(items.iter().map(|item| &item.value).eq(want.iter()), "{items:?}");
    }

    #[test]
    fn a_file_may_hold_thousands_of_documents_but_aliases_do_not_multiply_it() {
        let document = "kind: A\nspec: {rules: [{a: 1, b: [2, 3]}, {c: {d: 4}}]}\n---\n";
        assert_eq!(parse(&document.repeat(3_000)).unwrap().len(), 3_000);
        let level = |level: u32| format!("l{level}: &l{level} [{}]", vec![format!("*l{}", level - 1); 10].join(", "));
        let bomb = (1..12).map(level).collect::<Vec<_>>().join("\n");
        assert!(parse(&format!("l0: &l0 [x]\n{bomb}")).is_err());
    }

    #[test]
    fn what_is_not_yaml_is_told_with_its_place() {
        for (text, position, message) in [
            ("a:\n  b: 1\n c: 2\n", at(3, 2), "while parsing a block mapping, did not find expected key"),
            ("a: 1\na: 2\n", at(2, 1), "duplicate mapping key: a"),
            ("a: [1,\nb: 2\n", at(1, 4), "unclosed bracket '['"),
        ] {
            let want = SyntaxError { position: Some(position), message: message.to_owned() };
            assert_eq!(parse(text).unwrap_err(), want, "{text}");
        }
    }
}
