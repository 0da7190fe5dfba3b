//! Documents that a policy holds itself or takes from a ConfigMap, in JSON or YAML.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use control_plane_model::ObjectName;
use crds::request_validation_policy::ConfigMapReference;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

/// The ConfigMaps of a policy's namespace.
#[derive(Clone, Copy)]
pub(crate) struct Documents<'a> {
    pub(super) config_maps: &'a BTreeMap<ObjectName, Arc<ConfigMap>>,
    pub(super) namespace: &'a Arc<str>,
}

impl<'a> Documents<'a> {
    /// The document that is `inline` or in the ConfigMap.
    ///
    /// # Errors: the text for the policy's owner, which begins with the field behind a dot, or with a colon.
    pub(super) fn one(
        &self,
        inline: Option<&'a Value>,
        reference: Option<&ConfigMapReference>,
    ) -> Result<Cow<'a, Value>, String> {
        match (inline, reference) {
            (Some(inline), None) => Ok(Cow::Borrowed(inline)),
            (None, Some(reference)) => {
                self.read(reference).map(Cow::Owned).map_err(|error| format!(".configMapRef: {error}"))
            }
            _ => Err(": one of inline and configMapRef is needed".to_owned()),
        }
    }

    fn read(&self, reference: &ConfigMapReference) -> Result<Value, String> {
        let ConfigMapReference { name, key } = reference;
        let object = ObjectName::new(self.namespace.clone(), name.as_str());
        let Some(config_map) = self.config_maps.get(&object) else {
            return Err(format!("ConfigMap {object} does not exist"));
        };
        let entry = config_map.data.as_ref().and_then(|data| data.get(key));
        let text = entry.ok_or_else(|| format!("ConfigMap {object} has no entry {key:?}"))?;
        parse(text).map_err(|error| format!("entry {key:?} of ConfigMap {object}: {error}"))
    }
}

/// A document in JSON or YAML. Scalars are read as JSON would read them; an alias counts as what it stands for, so that a few
/// lines cannot become a document without end.
fn parse(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let message = error.to_string();
        message.lines().next().unwrap_or("is no YAML").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_and_yaml_are_read_alike() {
        let document = json!({"openapi": "3.1.0", "a": [1, 2.5, null, true], "responses": {"200": {"on": "yes"}}});
        let yaml = "openapi: 3.1.0\na: [1, 2.5, null, true]\nresponses:\n  200:\n    on: yes\n";
        assert_eq!(parse(yaml), Ok(document.clone()));
        assert_eq!(parse(&document.to_string()), Ok(document));
    }

    #[test]
    fn what_is_no_document_is_told() {
        for text in ["a: [", "a: 1\na: 2\n", "{\"a\": 1} trailing"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                    g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
        assert!(parse(bomb).is_err());
    }
}
