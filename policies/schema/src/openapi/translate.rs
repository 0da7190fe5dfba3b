//! The Schema Objects of a document, made into JSON Schemas in their place, so that locations stay those of the document.
//!
//! OpenAPI 3.0 (§4.7.24) becomes draft 4, whose `exclusiveMinimum` it shares: `nullable` becomes a type, what stands beside
//! `$ref` goes. OpenAPI 3.1 is JSON Schema as it is. In both, `readOnly` properties are not required in a request, and
//! refused by choice. Only schemas that parameters and request bodies reach are translated.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::DocumentError;
use crate::pointer;
use crate::readonly;
use crate::schema::{self, Draft};
use crate::violation::fragment;

/// Keywords that hold one schema.
const ONE: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords that hold an array of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords that hold schemas by name.
const NAMED: &[&str] = &["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
/// Keywords that change what a reference means. A document's schemas refer by JSON Pointer only.
const IDENTIFIERS: &[&str] = &["$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef"];
/// References in a row that are followed to find a property's `readOnly`.
const MAX_REFERENCES: usize = 32;

/// The version of a document, as far as its schemas differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenApi30,
    OpenApi31(Draft),
}

impl Dialect {
    pub(crate) fn draft(self) -> Draft {
        match self {
            Self::OpenApi30 => Draft::Draft4,
            Self::OpenApi31(draft) => draft,
        }
    }
}

/// Translates the schema at each pointer and all that they refer to.
pub(crate) fn translate(
    document: &mut Value,
    schemas: Vec<String>,
    dialect: Dialect,
    refuses_read_only: bool,
) -> Result<(), DocumentError> {
    let original = document.clone();
    let mut translation = Translation { original: &original, dialect, refuses_read_only, pending: schemas };
    let mut done = HashSet::new();
    while let Some(at) = translation.pending.pop() {
        if !done.insert(at.clone()) {
            continue;
        }
        let Some(schema) = document.pointer_mut(&at) else {
            return Err(DocumentError::Reference { reference: format!("#{}", fragment(&at)), location: at });
        };
        translation.schema(schema, &at)?;
        schema::check_metaschema(dialect.draft(), schema, &format!("#{}", fragment(&at)))?;
    }
    Ok(())
}

struct Translation<'d> {
    original: &'d Value,
    dialect: Dialect,
    refuses_read_only: bool,
    pending: Vec<String>,
}

impl Translation<'_> {
    fn schema(&mut self, schema: &mut Value, at: &str) -> Result<(), DocumentError> {
        let keywords = match schema {
            Value::Object(keywords) => keywords,
            Value::Bool(_) if self.dialect != Dialect::OpenApi30 => return Ok(()),
            _ => return Err(DocumentError::structure(at, "is not a schema")),
        };
        if let Some(Value::String(reference)) = keywords.get("$ref") {
            let target = local(reference, at)?;
            if self.original.pointer(&target).is_none() {
                return Err(DocumentError::Reference { reference: reference.clone(), location: at.to_owned() });
            }
            self.pending.push(target);
            if self.dialect == Dialect::OpenApi30 {
                keywords.retain(|keyword, _| keyword == "$ref");
                return Ok(());
            }
        }
        match self.dialect {
            Dialect::OpenApi30 => version_30(keywords, at)?,
            Dialect::OpenApi31(draft) => version_31(keywords, draft, at)?,
        }
        self.read_only(keywords);
        for (keyword, value) in keywords.iter_mut() {
            let below = pointer::join(at, keyword);
            let keyword = keyword.as_str();
            match value {
                Value::Object(members) if NAMED.contains(&keyword) => {
                    for (name, member) in members {
                        self.schema(member, &pointer::join(&below, name))?;
                    }
                }
                Value::Array(items) if LIST.contains(&keyword) => {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.schema(item, &pointer::join(&below, &index.to_string()))?;
                    }
                }
                Value::Object(_) if ONE.contains(&keyword) => self.schema(value, &below)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Read-only properties are not the client's to send, so they cannot be required of it.
    fn read_only(&self, keywords: &mut Map<String, Value>) {
        let Some(Value::Object(properties)) = keywords.get("properties") else { return };
        let names: Vec<Value> = properties
            .iter()
            .filter(|(_, property)| self.is_read_only(property, MAX_REFERENCES))
            .map(|(name, _)| Value::from(name.as_str()))
            .collect();
        if names.is_empty() {
            return;
        }
        if let Some(Value::Array(required)) = keywords.get_mut("required") {
            required.retain(|name| !names.contains(name));
            // Draft 4 allows no empty list.
            if required.is_empty() {
                keywords.remove("required");
            }
        }
        if self.refuses_read_only {
            keywords.insert(readonly::KEYWORD.to_owned(), Value::Array(names));
        }
    }

    fn is_read_only(&self, property: &Value, references: usize) -> bool {
        let reference = property.get("$ref").and_then(Value::as_str);
        if property.get("readOnly") == Some(&Value::Bool(true)) {
            return reference.is_none() || self.dialect != Dialect::OpenApi30;
        }
        let target = reference.and_then(|reference| self.original.pointer(&local(reference, "").ok()?));
        target.is_some_and(|target| references > 0 && self.is_read_only(target, references - 1))
    }
}

fn version_30(keywords: &mut Map<String, Value>, at: &str) -> Result<(), DocumentError> {
    // Not Schema Object fields there, but draft 4 would take them for its own.
    keywords.remove("id");
    keywords.remove("$schema");
    let is_nullable = keywords.remove("nullable") == Some(Value::Bool(true));
    match keywords.get_mut("type") {
        Some(Value::String(name)) if is_nullable => {
            let types = vec![Value::from(name.as_str()), Value::from("null")];
            keywords.insert("type".to_owned(), Value::Array(types));
        }
        Some(Value::String(_)) | None => {}
        Some(_) => return Err(DocumentError::structure(&pointer::join(at, "type"), "must be one type in OpenAPI 3.0")),
    }
    Ok(())
}

fn version_31(keywords: &Map<String, Value>, draft: Draft, at: &str) -> Result<(), DocumentError> {
    if let Some(keyword) = IDENTIFIERS.iter().find(|keyword| keywords.contains_key(**keyword)) {
        return Err(DocumentError::structure(&pointer::join(at, keyword), "is not supported within a document"));
    }
    match keywords.get("$schema").and_then(Value::as_str) {
        Some(uri) if Draft::of_uri(uri) != Some(draft) => {
            Err(DocumentError::structure(&pointer::join(at, "$schema"), "must be the document's dialect"))
        }
        _ => Ok(()),
    }
}

/// The pointer that a reference within the document stands for.
pub(crate) fn local(reference: &str, location: &str) -> Result<String, DocumentError> {
    let refuse = || DocumentError::Reference { reference: reference.to_owned(), location: location.to_owned() };
    let fragment = reference.strip_prefix('#').ok_or_else(refuse)?;
    let pointer = percent_encoding::percent_decode_str(fragment).decode_utf8().map_err(|_| refuse())?;
    if pointer.is_empty() || pointer.starts_with('/') { Ok(pointer.into_owned()) } else { Err(refuse()) }
}
