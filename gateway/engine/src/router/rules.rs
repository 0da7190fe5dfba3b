//! The matches of one served host, indexed by path: exact paths and prefixes by hash, regular expressions one by one.
//!
//! Invariant: `find` gives what a walk over all matches in the order of precedence would give first (a property test
//! compares). It costs one hash for each path segment, however many rules there are, plus one step for each pattern.

use std::{cmp::Ordering, sync::Arc};

use control_plane_model::{HostPattern, PathMatch, Route, RouteMatch, ValueMatch};

use super::{
    Matched, RequestView,
    rank::{Order, Rank},
};
use crate::{lookup::LookupMap, strict::canonical_path};

/// The matches for one served host.
pub(super) struct HostTable<T> {
    /// By the host that the routes declare, the most specific first.
    tiers: Vec<(HostPattern, Tier<T>)>,
}

/// The matches of routes that declare the same host.
struct Tier<T> {
    exact: LookupMap<Arc<str>, Arc<Vec<Entry<T>>>>,
    regex: Arc<Vec<Entry<T>>>,
    /// Without closing slash; `/` is the empty text.
    prefix: LookupMap<Arc<str>, Arc<Vec<Entry<T>>>>,
    /// Of the prefixes, so that a long path costs no more than the longest of them.
    longest_prefix: usize,
}

/// One match of one rule.
struct Entry<T> {
    rank: Rank,
    order: Order,
    wanted: Arc<RouteMatch>,
    /// Length of the path's prefix.
    prefix: Option<usize>,
    rule: Arc<T>,
}

/// Where a match is kept.
enum Place {
    Exact(Arc<str>),
    Regex,
    Prefix(Arc<str>),
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { tiers: Vec::new() }
    }
}

impl<T> Clone for HostTable<T> {
    fn clone(&self) -> Self {
        Self { tiers: self.tiers.clone() }
    }
}

impl<T> Default for Tier<T> {
    fn default() -> Self {
        Self { exact: LookupMap::default(), regex: Arc::default(), prefix: LookupMap::default(), longest_prefix: 0 }
    }
}

impl<T> Clone for Tier<T> {
    fn clone(&self) -> Self {
        Self {
            exact: self.exact.clone(),
            regex: self.regex.clone(),
            prefix: self.prefix.clone(),
            longest_prefix: self.longest_prefix,
        }
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            rank: self.rank,
            order: self.order.clone(),
            wanted: self.wanted.clone(),
            prefix: self.prefix,
            rule: self.rule.clone(),
        }
    }
}

/// Less is more specific (Gateway API: exact hosts before wildcards, more characters before fewer).
fn by_specificity(left: &HostPattern, right: &HostPattern) -> Ordering {
    fn key(pattern: &HostPattern) -> (u8, std::cmp::Reverse<usize>, &str) {
        match pattern {
            HostPattern::Exact(host) => (0, std::cmp::Reverse(host.len()), host),
            HostPattern::Wildcard(suffix) => (1, std::cmp::Reverse(suffix.len()), suffix),
            HostPattern::Any => (2, std::cmp::Reverse(0), ""),
        }
    }
    key(left).cmp(&key(right))
}

impl<T> HostTable<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.tiers.is_empty()
    }

    pub(super) fn insert(&mut self, declared: &HostPattern, wanted: &RouteMatch, order: Order, rule: Arc<T>) {
        let index = match self.tiers.binary_search_by(|(pattern, _)| by_specificity(pattern, declared)) {
            Ok(index) => index,
            Err(index) => {
                self.tiers.insert(index, (declared.clone(), Tier::default()));
                index
            }
        };
        if let Some((_, tier)) = self.tiers.get_mut(index) {
            tier.insert(wanted, order, rule);
        }
    }

    pub(super) fn remove(&mut self, declared: &HostPattern, route: &Arc<Route>) {
        let Ok(index) = self.tiers.binary_search_by(|(pattern, _)| by_specificity(pattern, declared)) else { return };
        if let Some((_, tier)) = self.tiers.get_mut(index) {
            tier.remove(route);
            if tier.is_empty() {
                self.tiers.remove(index);
            }
        }
    }

    pub(super) fn find(&self, request: &RequestView<'_>) -> Option<Matched<'_, T>> {
        self.tiers.iter().find_map(|(_, tier)| tier.find(request))
    }
}

/// The path of a match in the form in which requests have it; as written where it has none, so that it never matches.
fn canonical(path: &str) -> Arc<str> {
    canonical_path(path).map_or_else(|_| path.into(), |path| path.as_ref().into())
}

impl Place {
    fn of(path: &PathMatch) -> Self {
        match path {
            PathMatch::Exact(path) => Self::Exact(canonical(path)),
            PathMatch::Prefix(path) => Self::Prefix(canonical(path).trim_end_matches('/').into()),
            PathMatch::Grpc { service: Some(ValueMatch::Exact(service)), method: Some(ValueMatch::Exact(method)) } => {
                Self::Exact(format!("/{service}/{method}").into())
            }
            PathMatch::Grpc { service: Some(ValueMatch::Exact(service)), .. } => {
                Self::Prefix(format!("/{service}").into())
            }
            PathMatch::Grpc { service: None, .. } => Self::Prefix("".into()),
            PathMatch::Regex(_) | PathMatch::Grpc { service: Some(ValueMatch::Regex(_)), .. } => Self::Regex,
        }
    }
}

impl<T> Tier<T> {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.regex.is_empty() && self.prefix.is_empty()
    }

    fn insert(&mut self, wanted: &RouteMatch, order: Order, rule: Arc<T>) {
        let place = Place::of(&wanted.path);
        let prefix = match (&place, &wanted.path) {
            (Place::Prefix(path), PathMatch::Prefix(_)) => Some(path.len()),
            _ => None,
        };
        let entry = Entry { rank: Rank::of(wanted), order, wanted: Arc::new(wanted.clone()), prefix, rule };
        let bucket = match place {
            Place::Exact(path) => self.exact.entry(path).or_default(),
            Place::Regex => &mut self.regex,
            Place::Prefix(path) => {
                self.longest_prefix = self.longest_prefix.max(path.len());
                self.prefix.entry(path).or_default()
            }
        };
        let bucket = Arc::make_mut(bucket);
        let index = bucket.partition_point(|other| other.compare(&entry).is_lt());
        bucket.insert(index, entry);
    }

    fn remove(&mut self, route: &Arc<Route>) {
        let stays = |entry: &Entry<T>| entry.order.route.key != route.key;
        for wanted in route.rules.iter().flat_map(|rule| &rule.matches) {
            match Place::of(&wanted.path) {
                Place::Exact(path) => shrink(&mut self.exact, &path, stays),
                Place::Prefix(path) => shrink(&mut self.prefix, &path, stays),
                Place::Regex => Arc::make_mut(&mut self.regex).retain(stays),
            }
        }
        self.longest_prefix = self.prefix.keys().map(|path| path.len()).max().unwrap_or(0);
    }

    fn find(&self, request: &RequestView<'_>) -> Option<Matched<'_, T>> {
        let exact = self.exact.get(request.path).and_then(|bucket| take(bucket, request));
        exact.or_else(|| take(&self.regex, request)).or_else(|| self.find_prefix(request))
    }

    /// Asks for every prefix of the path that ends at an element's end, the longest first.
    fn find_prefix(&self, request: &RequestView<'_>) -> Option<Matched<'_, T>> {
        if self.prefix.is_empty() {
            return None;
        }
        let mut end = request.path.len();
        loop {
            let path = request.path.get(..end)?;
            if end <= self.longest_prefix
                && let Some(found) = self.prefix.get(path).and_then(|bucket| take(bucket, request))
            {
                return Some(found);
            }
            end = path.rfind('/')?;
        }
    }
}

fn shrink<T>(map: &mut LookupMap<Arc<str>, Arc<Vec<Entry<T>>>>, path: &str, stays: impl Fn(&Entry<T>) -> bool) {
    if let Some(bucket) = map.get_mut(path) {
        let bucket = Arc::make_mut(bucket);
        bucket.retain(stays);
        if bucket.is_empty() {
            map.remove(path);
        }
    }
}

fn take<'a, T>(bucket: &'a [Entry<T>], request: &RequestView<'_>) -> Option<Matched<'a, T>> {
    let entry = bucket.iter().find(|entry| entry.takes(request))?;
    Some(Matched { rule: &entry.rule, prefix: entry.prefix })
}

impl<T> Entry<T> {
    fn compare(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank).then_with(|| self.order.compare(&other.order))
    }

    /// Whether all conditions hold. Exact paths and prefixes hold by the place where the entry was found.
    fn takes(&self, request: &RequestView<'_>) -> bool {
        let wanted = &*self.wanted;
        let path = match &wanted.path {
            PathMatch::Exact(_) | PathMatch::Prefix(_) => true,
            PathMatch::Regex(regex) => regex.is_match(request.path),
            PathMatch::Grpc { service, method } => {
                request.is_grpc && is_grpc_method(request.path, service.as_ref(), method.as_ref())
            }
        };
        path && wanted.method.as_ref().is_none_or(|method| method == request.method)
            && wanted.headers.iter().all(|header| request.has_header(header))
            && wanted.query.iter().all(|parameter| request.has_query(parameter))
    }
}

/// Whether the path is `/service/method` with names that match.
fn is_grpc_method(path: &str, service: Option<&ValueMatch>, method: Option<&ValueMatch>) -> bool {
    let Some((path_service, path_method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return false;
    };
    service.is_none_or(|service| service.matches(path_service))
        && method.is_none_or(|method| method.matches(path_method))
}
