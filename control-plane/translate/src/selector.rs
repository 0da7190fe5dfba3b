//! Label selectors and which namespaces a listener or a Gateway lets in (`allowedRoutes`, `allowedListeners`).

use std::{collections::BTreeMap, sync::Arc};

use crds::gateway_api::LabelSelector;

use crate::inputs::Inputs;

/// A checked label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    equal: Vec<(String, String)>,
    expressions: Vec<(String, Test)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Checks `selector`; an empty one selects everything.
    ///
    /// # Errors: the text for the user, where an operator is unknown or its values do not fit.
    pub(crate) fn new(selector: &LabelSelector) -> Result<Self, String> {
        let equal = selector.match_labels.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        let expressions = selector.match_expressions.iter().flatten().map(|requirement| {
            let values = requirement.values.clone().unwrap_or_default();
            let test = match (requirement.operator.as_str(), values.is_empty()) {
                ("In", false) => Test::In(values),
                ("NotIn", false) => Test::NotIn(values),
                ("Exists", true) => Test::Exists,
                ("DoesNotExist", true) => Test::DoesNotExist,
                (operator, _) => {
                    return Err(format!("selector on {:?}: operator {operator:?} with these values", requirement.key));
                }
            };
            Ok((requirement.key.clone(), test))
        });
        Ok(Self { equal, expressions: expressions.collect::<Result<_, _>>()? })
    }

    /// Whether `labels` are selected.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.equal.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|(key, test)| match (test, labels.get(key)) {
                (Test::In(values), Some(value)) => values.contains(value),
                (Test::NotIn(values), Some(value)) => !values.contains(value),
                (Test::Exists, Some(_)) | (Test::DoesNotExist | Test::NotIn(_), None) => true,
                (Test::In(_) | Test::Exists, None) | (Test::DoesNotExist, Some(_)) => false,
            })
    }
}

/// Namespaces that are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespaces {
    None,
    All,
    Only(Arc<str>),
    Selected(Selector),
}

impl Namespaces {
    /// Whether objects of `namespace` are let in.
    pub(crate) fn admit(&self, namespace: &str, inputs: &Inputs) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(only) => **only == *namespace,
            Self::Selected(selector) => selector.matches(&inputs.namespace_labels(namespace)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: serde_json::Value, labels: &[(&str, &str)]) -> bool {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Selector::new(&selector).unwrap().matches(&labels)
    }

    #[test]
    fn every_operator_does_what_kubernetes_does() {
        let expression = |operator: &str, values: &[&str]| serde_json::json!({"matchExpressions": [{"key": "tier", "operator": operator, "values": values}]});
        for (operator, values, with_edge, without) in [
            ("In", &["edge"][..], true, false),
            ("In", &["core"], false, false),
            ("NotIn", &["edge"], false, true),
            ("Exists", &[], true, false),
            ("DoesNotExist", &[], false, true),
        ] {
            assert_eq!(selects(expression(operator, values), &[("tier", "edge")]), with_edge, "{operator} {values:?}");
            assert_eq!(selects(expression(operator, values), &[]), without, "{operator} {values:?} without the label");
        }
        assert!(selects(serde_json::json!({}), &[]));
        assert!(!selects(serde_json::json!({"matchLabels": {"a": "b"}}), &[("a", "c")]));
    }

    #[test]
    fn an_unknown_operator_is_refused() {
        let selector = serde_json::json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        assert!(Selector::new(&serde_json::from_value(selector).unwrap()).is_err());
    }
}
