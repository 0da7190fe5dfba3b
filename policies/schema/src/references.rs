//! What a schema's references cost, found before it is compiled: each one resolves among the given documents, none leads
//! back to itself without descending into the instance, and what applies to one place of an instance is bounded.
//!
//! Without the last, thirty definitions that each refer twice to the next apply 2^30 schemas to a single number.
//! Not seen: where `$dynamicRef` and `$recursiveRef` lead when the dynamic scope redirects them; they count by their static
//! target. The validator itself ends a loop among those.

use std::collections::{HashMap, HashSet};

use referencing::{Draft, Resolver, ResourceRef};
use serde_json::{Map, Value};

use crate::pointer;
use crate::schema::{Limits, Patterns, SchemaError};
use crate::violation::fragment;

/// Keywords whose schema, or schemas in an array or by name, apply to the same place as they do themselves.
const IN_PLACE: &[&str] = &["allOf", "anyOf", "dependencies", "dependentSchemas", "else", "if", "not", "oneOf", "then"];
/// Keywords whose value is no schema, whatever it looks like.
const DATA: &[&str] = &["const", "default", "enum", "examples"];

/// A schema within its document.
#[derive(Clone)]
struct Place<'r> {
    schema: &'r Value,
    resolver: Resolver<'r>,
    draft: Draft,
    /// Of the document; empty for the one that is compiled.
    uri: String,
    pointer: String,
}

struct Walk<'r> {
    limits: Limits,
    patterns: Patterns,
    /// Schemas whose in-place cost is known, by address: the documents stay where they are.
    cost: HashMap<usize, Cost>,
    /// Schemas on the way from the current place of the instance.
    under_way: HashSet<usize>,
    /// Schemas that apply to other places of the instance.
    pending: Vec<Place<'r>>,
    queued: HashSet<usize>,
}

#[derive(Clone, Copy)]
struct Cost {
    /// Schemas that apply to one place of an instance, this one included.
    fan_out: usize,
    /// References on the longest way among them.
    references: usize,
}

/// Checks `schema` and everything that it refers to.
pub(crate) fn check<'r>(
    schema: &'r Value,
    resolver: Resolver<'r>,
    draft: Draft,
    limits: &Limits,
    patterns: Patterns,
) -> Result<(), SchemaError> {
    let mut walk = Walk {
        limits: *limits,
        patterns,
        cost: HashMap::new(),
        under_way: HashSet::new(),
        pending: Vec::new(),
        queued: HashSet::new(),
    };
    walk.pending.push(Place { schema, resolver, draft, uri: String::new(), pointer: String::new() });
    while let Some(place) = walk.pending.pop() {
        walk.visit(place)?;
    }
    Ok(())
}

impl<'r> Place<'r> {
    fn location(&self) -> String {
        format!("{}#{}", self.uri, fragment(&self.pointer))
    }

    /// A schema within this one. Its `$id` counts from here; that of a reference's target is known already.
    fn child(&self, schema: &'r Value, pointer: String) -> Result<Self, SchemaError> {
        let draft = self.draft.detect(schema);
        let subresource = ResourceRef::new(schema, draft);
        let child = Self { schema, draft, pointer, ..self.clone() };
        let resolver = self
            .resolver
            .in_subresource(subresource)
            .map_err(|_| unresolved(&child, draft.id_keyword(), subresource.id().unwrap_or_default()))?;
        Ok(Self { resolver, ..child })
    }
}

fn address(schema: &Value) -> usize {
    std::ptr::from_ref(schema).addr()
}

impl<'r> Walk<'r> {
    fn visit(&mut self, mut place: Place<'r>) -> Result<Cost, SchemaError> {
        let leaf = Cost { fan_out: 1, references: 0 };
        let address = address(place.schema);
        if let Some(cost) = self.cost.get(&address) {
            return Ok(*cost);
        }
        let Value::Object(keywords) = place.schema else { return Ok(leaf) };
        if !self.under_way.insert(address) {
            return Err(SchemaError::Endless { location: place.location() });
        }
        if self.under_way.len() > self.limits.nesting {
            return Err(SchemaError::Nesting { location: place.location(), limit: self.limits.nesting });
        }
        place.draft = place.draft.detect(place.schema);
        let mut cost = leaf;
        for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(Value::String(reference)) = keywords.get(keyword) {
                let target = self.visit(target(&place, keyword, reference)?)?;
                let references = target.references + 1;
                if references > self.limits.references {
                    return Err(SchemaError::References { location: place.location(), limit: self.limits.references });
                }
                cost = self.add(&place, cost, Cost { references, ..target })?;
            }
        }
        // Until draft 7 a reference stands alone.
        let stands_alone = place.draft < Draft::Draft201909 && keywords.get("$ref").is_some_and(Value::is_string);
        if !stands_alone {
            cost = self.keywords(&place, keywords, cost)?;
        }
        self.under_way.remove(&address);
        self.cost.insert(address, cost);
        Ok(cost)
    }

    fn add(&self, place: &Place<'r>, sum: Cost, part: Cost) -> Result<Cost, SchemaError> {
        let fan_out = sum.fan_out.saturating_add(part.fan_out);
        if fan_out > self.limits.fan_out {
            return Err(SchemaError::FanOut { location: place.location(), limit: self.limits.fan_out });
        }
        Ok(Cost { fan_out, references: sum.references.max(part.references) })
    }

    fn keywords(
        &mut self,
        place: &Place<'r>,
        keywords: &'r Map<String, Value>,
        mut cost: Cost,
    ) -> Result<Cost, SchemaError> {
        let children: HashSet<usize> = place.draft.subresources_of(place.schema).map(address).collect();
        for (keyword, value) in keywords {
            if DATA.contains(&keyword.as_str()) {
                continue;
            }
            let at = pointer::join(&place.pointer, keyword);
            self.patterns(place, keyword, value)?;
            let nested: Vec<(&'r Value, String)> = match value {
                Value::Object(members) if !children.contains(&address(value)) => {
                    members.iter().map(|(name, schema)| (schema, pointer::join(&at, name))).collect()
                }
                Value::Array(items) => items
                    .iter()
                    .enumerate()
                    .map(|(index, schema)| (schema, pointer::join(&at, &index.to_string())))
                    .collect(),
                _ => vec![(value, at)],
            };
            for (schema, pointer) in nested.into_iter().filter(|(schema, _)| children.contains(&address(schema))) {
                if IN_PLACE.contains(&keyword.as_str()) {
                    let part = self.visit(place.child(schema, pointer)?)?;
                    cost = self.add(place, cost, part)?;
                } else if self.queued.insert(address(schema)) {
                    self.pending.push(place.child(schema, pointer)?);
                }
            }
        }
        Ok(cost)
    }
}

impl Walk<'_> {
    /// Refuses patterns that need backtracking, where there is to be none.
    fn patterns(&self, place: &Place<'_>, keyword: &str, value: &Value) -> Result<(), SchemaError> {
        let all_linear = match (keyword, value) {
            _ if self.patterns != Patterns::Linear => true,
            ("pattern", Value::String(pattern)) => {
                // What looks ahead from the start of the string is matched part by part.
                jsonschema_regex::split_leading_lookaheads(pattern)
                    .map_or_else(|| self.is_linear(pattern), |parts| parts.iter().all(|part| self.is_linear(part)))
            }
            ("patternProperties", Value::Object(members)) => members.keys().all(|pattern| self.is_linear(pattern)),
            _ => true,
        };
        if all_linear {
            return Ok(());
        }
        let location = format!("{}#{}", place.uri, fragment(&pointer::join(&place.pointer, keyword)));
        let message = "is no pattern, or too large, or cannot be matched in linear time".to_owned();
        Err(SchemaError::Invalid { location, keyword: keyword.to_owned(), message })
    }

    /// Whether the engine that never backtracks takes it.
    fn is_linear(&self, pattern: &str) -> bool {
        let translated = jsonschema_regex::to_rust_regex(pattern);
        translated.is_ok_and(|pattern| {
            regex::RegexBuilder::new(&pattern).size_limit(self.limits.pattern_bytes).build().is_ok()
        })
    }
}

/// Where the reference stands that made the preparation of the documents fail: its target is `uri`, or is no URI.
pub(crate) fn locate(document: &Value, uri: Option<&str>) -> Option<(String, String)> {
    let base = referencing::uri::from_str(ANONYMOUS).ok()?;
    let mut pending = vec![(document, String::new())];
    while let Some((value, at)) = pending.pop() {
        match value {
            Value::Object(members) => {
                for (keyword, member) in members {
                    let at = pointer::join(&at, keyword);
                    if let ("$ref" | "$dynamicRef" | "$schema", Value::String(reference)) = (keyword.as_str(), member) {
                        let target = referencing::uri::resolve_against(&base.borrow(), reference);
                        let file = reference.split('#').next().unwrap_or_default();
                        let is_it = match (uri, target) {
                            (None, target) => target.is_err(),
                            (Some(uri), Ok(_)) => {
                                !file.is_empty()
                                    && uri
                                        .split('#')
                                        .next()
                                        .is_some_and(|uri| uri.ends_with(file.trim_start_matches("./")))
                            }
                            (Some(_), Err(_)) => false,
                        };
                        if is_it {
                            return Some((reference.clone(), format!("#{}", fragment(&at))));
                        }
                    }
                    pending.push((member, at));
                }
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                pending.extend(items.map(|(index, item)| (item, pointer::join(&at, &index.to_string()))));
            }
            _ => {}
        }
    }
    None
}

/// Base of a schema that names none.
pub const ANONYMOUS: &str = "json-schema:///";

fn unresolved(place: &Place<'_>, keyword: &str, reference: &str) -> SchemaError {
    let location = format!("{}#{}", place.uri, fragment(&pointer::join(&place.pointer, keyword)));
    SchemaError::Unresolved { reference: reference.to_owned(), location }
}

fn target<'r>(place: &Place<'r>, keyword: &str, reference: &str) -> Result<Place<'r>, SchemaError> {
    let resolved = place.resolver.lookup(reference).map_err(|_| unresolved(place, keyword, reference))?;
    let (schema, resolver, draft) = resolved.into_inner();
    let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
    let uri = if document.is_empty() { place.uri.clone() } else { document.to_owned() };
    let pointer = percent_encoding::percent_decode_str(fragment).decode_utf8_lossy().into_owned();
    Ok(Place { schema, resolver, draft, uri, pointer })
}

/// Nodes and depth of a document.
pub(crate) fn size(document: &Value) -> (usize, usize) {
    let mut nodes = 0;
    let mut deepest = 0;
    let mut pending = vec![(document, 0)];
    while let Some((value, depth)) = pending.pop() {
        nodes += 1;
        deepest = deepest.max(depth);
        match value {
            Value::Array(items) => pending.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(members) => pending.extend(members.values().map(|member| (member, depth + 1))),
            _ => {}
        }
    }
    (nodes, deepest)
}
