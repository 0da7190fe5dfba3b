//! An object as the API server sent it, readable or not.
//!
//! One object that our types do not know (a newer version's enum variant) would otherwise fail the whole list that it is
//! in, and with it every other object of its kind. (`kube::core::DeserializeGuard` keeps them apart as well, but parses
//! `status` with the rest, which anybody's controller may have written, and copies each object.)
//! Invariant: nothing in `status` makes an object unreadable.

use std::{borrow::Cow, fmt::Debug};

use kube::{Resource, api::ObjectMeta, core::PartialObjectMeta};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) enum Seen<K> {
    /// It parses.
    Readable {
        /// Without its status.
        object: Box<K>,
        /// Its `status` as JSON text; `null` where it has none.
        status: String,
    },
    /// It does not parse, but for its metadata.
    Unreadable {
        /// Whose it is.
        metadata: Box<ObjectMeta>,
        /// Why not.
        why: String,
    },
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Seen<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let status = value.as_object_mut().and_then(|fields| fields.remove("status")).unwrap_or_default().to_string();
        match K::deserialize(&value) {
            Ok(object) => Ok(Self::Readable { object: Box::new(object), status }),
            Err(error) => {
                // Without a name there is nobody to keep apart: then the list fails, as it should.
                let partial = PartialObjectMeta::<K>::deserialize(&value).map_err(serde::de::Error::custom)?;
                Ok(Self::Unreadable { metadata: Box::new(partial.metadata), why: error.to_string() })
            }
        }
    }
}

impl<K: Resource> Resource for Seen<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Readable { object, .. } => object.meta(),
            Self::Unreadable { metadata, .. } => metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Readable { object, .. } => object.meta_mut(),
            Self::Unreadable { metadata, .. } => metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::gateway_api::HTTPRoute;
    use serde_json::json;

    use super::*;

    fn route(spec: &Value, status: &Value) -> Seen<HTTPRoute> {
        let metadata = json!({"name": "cart", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn a_status_that_is_not_as_our_types_have_it_does_not_matter_and_is_kept_as_it_is() {
        let status = json!({"parents": "none", "newer": 1});
        let Seen::Readable { status: kept, .. } = route(&json!({}), &status) else { panic!("unreadable") };
        assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), status);
    }

    #[test]
    fn of_an_object_that_does_not_parse_the_name_and_the_reason_are_known() {
        let seen = route(&json!({"rules": [{"filters": [{"type": "FromTheFuture"}]}]}), &Value::Null);
        assert_eq!(seen.meta().name.as_deref(), Some("cart"));
        let Seen::Unreadable { why, .. } = seen else { panic!("readable") };
        assert!(why.contains("FromTheFuture"), "{why}");
    }
}
