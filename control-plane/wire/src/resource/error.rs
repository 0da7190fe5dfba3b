//! Why an object is refused, with the path of the field, built from the inside outwards.

use std::fmt;

/// An object that cannot be taken.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub struct InvalidResource {
    /// Path of the field in `resources.proto`: `rules[2].matches[0].path`. Empty where it is the whole object.
    pub field: String,
    /// What is wrong with it. Never quotes a body that may be secret.
    pub reason: String,
}

impl fmt::Display for InvalidResource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(formatter, "{}: ", self.field)?;
        }
        formatter.write_str(&self.reason)
    }
}

impl InvalidResource {
    pub(super) fn new(reason: impl fmt::Display) -> Self {
        Self { field: String::new(), reason: reason.to_string() }
    }

    /// A choice that is missing, or was made by a version that knows more of them.
    pub(super) fn unknown() -> Self {
        Self::new("is missing, or not known to this version")
    }

    fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

/// Names the field of a failed conversion.
pub(super) trait Field<T> {
    /// The failure is in `name`.
    fn field(self, name: &str) -> Result<T, InvalidResource>;
    /// The failure is in element `index` of `name`.
    fn element(self, name: &str, index: usize) -> Result<T, InvalidResource>;
}

impl<T> Field<T> for Result<T, InvalidResource> {
    fn field(self, name: &str) -> Self {
        self.map_err(|error| error.within(name))
    }

    fn element(self, name: &str, index: usize) -> Self {
        self.map_err(|error| error.within(&format!("{name}[{index}]")))
    }
}

/// A message that must be there.
pub(super) fn required<T>(value: Option<T>) -> Result<T, InvalidResource> {
    value.ok_or_else(InvalidResource::unknown)
}

/// Converts every element of the repeated field `name`.
pub(super) fn each<W, M>(
    elements: Vec<W>,
    name: &str,
    convert: impl Fn(W) -> Result<M, InvalidResource>,
) -> Result<Vec<M>, InvalidResource> {
    elements.into_iter().enumerate().map(|(index, element)| convert(element).element(name, index)).collect()
}

/// As [`each`], for a field that has at least one element.
pub(super) fn each_of_some<W, M>(
    elements: Vec<W>,
    name: &str,
    convert: impl Fn(W) -> Result<M, InvalidResource>,
) -> Result<Vec<M>, InvalidResource> {
    if elements.is_empty() {
        return Err(InvalidResource::new("is empty")).field(name);
    }
    each(elements, name, convert)
}

/// Refuses the first element of `name` whose `id` an earlier one has.
pub(super) fn distinct<T, I: std::hash::Hash + Eq>(
    elements: &[T],
    name: &str,
    id: impl Fn(&T) -> I,
) -> Result<(), InvalidResource> {
    let mut seen = std::collections::HashSet::with_capacity(elements.len());
    for (index, element) in elements.iter().enumerate() {
        if !seen.insert(id(element)) {
            return Err(InvalidResource::new("repeats an earlier element")).element(name, index);
        }
    }
    Ok(())
}
