//! A map by host pattern, asked from the most specific pattern to the least.

use std::sync::Arc;

use control_plane_model::HostPattern;

use crate::lookup::LookupMap;

/// Values by host pattern. Cheap enough to clone for one edit: the values are shared.
pub(super) struct Hosts<V> {
    exact: LookupMap<Arc<str>, Arc<V>>,
    /// By suffix, which begins with a dot.
    wildcard: LookupMap<Arc<str>, Arc<V>>,
    any: Option<Arc<V>>,
}

impl<V> Default for Hosts<V> {
    fn default() -> Self {
        Self { exact: LookupMap::default(), wildcard: LookupMap::default(), any: None }
    }
}

impl<V> Clone for Hosts<V> {
    fn clone(&self) -> Self {
        Self { exact: self.exact.clone(), wildcard: self.wildcard.clone(), any: self.any.clone() }
    }
}

impl<V> Hosts<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }

    /// Every value.
    pub(super) fn all(&self) -> impl Iterator<Item = &V> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.any).map(|value| &**value)
    }

    /// The value for exactly this pattern, made where there is none.
    pub(super) fn entry(&mut self, pattern: &HostPattern) -> &mut Arc<V>
    where
        V: Default,
    {
        match pattern {
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::Wildcard(suffix) => self.wildcard.entry(suffix.clone()).or_default(),
            HostPattern::Any => self.any.get_or_insert_default(),
        }
    }

    /// Changes the value for exactly this pattern and drops it where `change` finds it empty.
    pub(super) fn remove_from(&mut self, pattern: &HostPattern, change: impl FnOnce(&mut V) -> bool)
    where
        V: Clone,
    {
        let value = match pattern {
            HostPattern::Exact(host) => self.exact.get_mut(host),
            HostPattern::Wildcard(suffix) => self.wildcard.get_mut(suffix),
            HostPattern::Any => self.any.as_mut(),
        };
        if value.is_some_and(|value| change(Arc::make_mut(value))) {
            match pattern {
                HostPattern::Exact(host) => drop(self.exact.remove(host)),
                HostPattern::Wildcard(suffix) => drop(self.wildcard.remove(suffix)),
                HostPattern::Any => self.any = None,
            }
        }
    }

    /// What `ask` gives first for the values whose pattern matches `host`, the most specific first. `None` is matched
    /// by [`HostPattern::Any`] alone.
    pub(super) fn find_map<'a, R>(&'a self, host: Option<&str>, mut ask: impl FnMut(&'a V) -> Option<R>) -> Option<R> {
        if let Some(host) = host {
            if let Some(found) = self.exact.get(host).and_then(|value| ask(value)) {
                return Some(found);
            }
            // A wildcard stands for one label at least, so a suffix at the very front does not count.
            let dots = host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.' && !self.wildcard.is_empty());
            for (dot, _) in dots {
                let value = host.get(dot..).and_then(|suffix| self.wildcard.get(suffix));
                if let Some(found) = value.and_then(|value| ask(value)) {
                    return Some(found);
                }
            }
        }
        self.any.as_ref().and_then(|value| ask(value))
    }
}
