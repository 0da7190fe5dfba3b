//! The keyword that refuses read-only properties in a request (OpenAPI `readOnly`): the names that an object must not have.
//! It is put beside `properties` when a document is translated, and means nothing to anyone else.

use jsonschema::json::{Node, Object};
use jsonschema::paths::Location;
use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Value};

use crate::metered::{Metered, MeteredNode};

/// Not a name that a schema would use.
pub(crate) const KEYWORD: &str = "x-nebula-read-only";

struct ReadOnly {
    names: Vec<String>,
}

impl ReadOnly {
    fn sent(&self, instance: MeteredNode<'_>) -> Option<&str> {
        let object = instance.as_object()?;
        self.names.iter().find(|name| object.get(name).is_some()).map(String::as_str)
    }
}

impl<'i> Keyword<'i, Metered> for ReadOnly {
    fn validate(&self, instance: MeteredNode<'i>) -> Result<(), ValidationError<'i>> {
        match self.sent(instance) {
            Some(name) => Err(ValidationError::custom(format!("the property {name} is read-only"))),
            None => Ok(()),
        }
    }

    fn is_valid(&self, instance: MeteredNode<'i>) -> bool {
        self.sent(instance).is_none()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature is the library's")]
pub(crate) fn compile<'a>(
    _parent: &'a Map<String, Value>,
    value: &'a Value,
    _location: Location,
) -> Result<Box<dyn for<'i> Keyword<'i, Metered>>, ValidationError<'a>> {
    let names = value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    Ok(Box::new(ReadOnly { names }))
}
