//! How the policies of a chain, from the Gateway down to a rule, become one.
//!
//! Scalars replace, maps merge by key, lists are taken whole. First the settings count, the more specific level over the less
//! specific; then the overrides, the less specific level over the more specific. Source: GEP-713, "Hierarchical".

use std::collections::BTreeMap;

use super::{Mode, PolicyKey};

/// A policy's settings, and those that the levels below cannot change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leveled<S> {
    /// What holds where no more specific level says otherwise.
    pub settings: S,
    /// What holds whatever a more specific level says. Only on a Gateway or a listener.
    pub overrides: Option<S>,
}

/// Settings that merge field by field.
pub trait Settings: Clone + Default {
    /// Puts what `over` says over what `self` says, and calls `took` with the path of each field that it took.
    fn lay(&mut self, over: &Self, took: &mut dyn FnMut(String));

    /// Whether the policy is switched off.
    fn is_disabled(&self) -> bool;

    /// What is done with a request that would be refused.
    fn mode(&self) -> Mode;
}

/// What holds at the end of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective<S> {
    /// The settings.
    pub settings: S,
    /// The policy that each field of them is from, by the field's path in the custom resource.
    pub sources: BTreeMap<String, PolicyKey>,
}

impl<S: Settings> Effective<S> {
    fn lay(&mut self, policy: &PolicyKey, over: &S) {
        let sources = &mut self.sources;
        self.settings.lay(over, &mut |path| drop(sources.insert(path, policy.clone())));
    }
}

/// Merges `levels`, the least specific first.
pub fn effective<'a, S: Settings + 'a>(
    levels: impl DoubleEndedIterator<Item = (&'a PolicyKey, &'a Leveled<S>)> + Clone,
) -> Effective<S> {
    let mut effective = Effective { settings: S::default(), sources: BTreeMap::new() };
    for (policy, level) in levels.clone() {
        effective.lay(policy, &level.settings);
    }
    for (policy, level) in levels.rev() {
        if let Some(overrides) = &level.overrides {
            effective.lay(policy, overrides);
        }
    }
    effective
}

/// Merges the settings of a kind that has no overrides, the least specific first.
pub(super) fn plain<'a, S: Settings + 'a>(levels: impl IntoIterator<Item = (&'a PolicyKey, &'a S)>) -> Effective<S> {
    let mut effective = Effective { settings: S::default(), sources: BTreeMap::new() };
    for (policy, settings) in levels {
        effective.lay(policy, settings);
    }
    effective
}

/// A scalar, or a list taken whole: replaced where `over` has one.
pub(super) fn scalar<T: Clone>(base: &mut Option<T>, over: Option<&T>, path: &str, took: &mut dyn FnMut(String)) {
    if let Some(over) = over {
        *base = Some(over.clone());
        took(path.to_owned());
    }
}

/// A map: entries of `over` replace those of the same key, whole.
pub(super) fn map<K: Clone + Ord + std::fmt::Display, V: Clone>(
    base: &mut BTreeMap<K, V>,
    over: &BTreeMap<K, V>,
    path: &str,
    took: &mut dyn FnMut(String),
) {
    for (key, value) in over {
        base.insert(key.clone(), value.clone());
        took(format!("{path}.{key}"));
    }
}
