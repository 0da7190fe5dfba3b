//! From the paths of a document to the matches of a route: few, and none that misses a path of the document.

use std::collections::BTreeSet;

/// A rule is still read at a glance.
const FEW: usize = 8;
/// What one rule may have (`HTTPRouteRule.matches`).
const MOST: usize = 64;

/// One match of a route's rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// This path and everything below it; `/` for all.
    Prefix(String),
    /// This path alone.
    Exact(String),
}

/// How the matches came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the paths of the servers.
    Bases,
    /// Each path for itself.
    Paths,
    /// By the first segments of the paths, as they are many.
    FirstSegments,
    /// Everything, as even those are too many, or a path begins with a parameter.
    Everything,
}

/// Matches for `paths` (templates) below each of `bases` (empty for the root). Sorted, none within another.
pub fn of(bases: &BTreeSet<String>, paths: &BTreeSet<String>) -> (Vec<Match>, Origin) {
    if !bases.contains("") {
        return (minimal(bases.iter().cloned().map(Match::Prefix)), Origin::Bases);
    }
    let others = bases.iter().filter(|base| !base.is_empty()).cloned().map(Match::Prefix);
    let others: Vec<Match> = others.collect();
    let with = |matches: Vec<Match>| minimal(matches.into_iter().chain(others.clone()));
    let each = with(paths.iter().map(|path| of_template(path)).collect());
    if each.contains(&Match::Prefix("/".to_owned())) {
        return (each, Origin::Everything);
    }
    if each.len() <= FEW {
        return (each, Origin::Paths);
    }
    let firsts = with(paths.iter().map(|path| first_segment(path)).collect());
    if firsts.len() <= MOST {
        return (firsts, Origin::FirstSegments);
    }
    (vec![Match::Prefix("/".to_owned())], Origin::Everything)
}

/// A template matches all that its segments before the first parameter lead to.
fn of_template(path: &str) -> Match {
    match path.find('{') {
        None => Match::Exact(path.to_owned()),
        Some(brace) => {
            let head = path.get(..brace).unwrap_or_default();
            let end = head.rfind('/').unwrap_or_default();
            Match::Prefix(head.get(..end).filter(|head| !head.is_empty()).unwrap_or("/").to_owned())
        }
    }
}

fn first_segment(path: &str) -> Match {
    match of_template(path) {
        Match::Exact(path) if path == "/" => Match::Exact(path),
        Match::Exact(path) | Match::Prefix(path) => {
            let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
            Match::Prefix(format!("/{first}"))
        }
    }
}

/// Without those that lie within another.
fn minimal(matches: impl Iterator<Item = Match>) -> Vec<Match> {
    let all: BTreeSet<Match> = matches.collect();
    let is_within = |inner: &Match, outer: &Match| {
        let Match::Prefix(prefix) = outer else { return false };
        let (Match::Prefix(path) | Match::Exact(path)) = inner;
        let rest = if prefix == "/" { Some(path.as_str()) } else { path.strip_prefix(prefix.as_str()) };
        inner != outer && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let kept = all.iter().filter(|inner| !all.iter().any(|outer| is_within(inner, outer)));
    kept.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        texts.into_iter().map(str::to_owned).collect()
    }

    fn prefix(path: &str) -> Match {
        Match::Prefix(path.to_owned())
    }

    fn exact(path: &str) -> Match {
        Match::Exact(path.to_owned())
    }

    #[test]
    fn the_base_path_of_the_servers_is_enough() {
        let (matches, origin) = of(&set(["/v1", "/v2", "/v2/beta"]), &set(["/carts", "/carts/{id}"]));
        assert_eq!((matches, origin), (vec![prefix("/v1"), prefix("/v2")], Origin::Bases));
    }

    #[test]
    fn without_one_each_path_is_matched_and_a_templated_one_by_what_leads_to_it() {
        let paths =
            set(["/", "/health", "/carts", "/carts/{id}", "/carts/{id}/items", "/report-{day}.csv/raw", "/cartsy"]);
        let (matches, origin) = of(&set([""]), &paths);
        assert_eq!((matches, origin), (vec![prefix("/")], Origin::Everything), "a first segment is templated");
        let paths =
            set(["/", "/health", "/carts", "/carts/{id}", "/carts/{id}/items", "/files/a-{day}.csv", "/cartsy"]);
        let (matches, origin) = of(&set([""]), &paths);
        let want = vec![prefix("/carts"), prefix("/files"), exact("/"), exact("/cartsy"), exact("/health")];
        assert_eq!((matches, origin), (want, Origin::Paths));
    }

    #[test]
    fn many_paths_are_matched_by_their_first_segments_and_too_many_by_everything() {
        let paths: Vec<String> = (0..30).map(|number| format!("/a/{number}")).collect();
        let (matches, origin) = of(&set([""]), &paths.into_iter().chain(["/b".to_owned()]).collect());
        assert_eq!((matches, origin), (vec![prefix("/a"), prefix("/b")], Origin::FirstSegments));
        let paths: BTreeSet<String> = (0..65).map(|number| format!("/a{number}/b")).collect();
        assert_eq!(of(&set([""]), &paths), (vec![prefix("/")], Origin::Everything));
    }

    #[test]
    fn every_path_of_the_document_is_matched() {
        let paths = set(["/", "/a", "/a/b/{c}/d", "/a/{x}", "/e/f/g", "/e-{h}/i"]);
        for base in ["", "/v1"] {
            let (matches, _) = of(&set([base]), &paths);
            for path in &paths {
                let request = format!("{base}{}", path.replace(['{', '}'], ""));
                let takes = |wanted: &Match| match wanted {
                    Match::Exact(path) => *path == request,
                    Match::Prefix(prefix) => {
                        prefix == "/" || request == *prefix || request.starts_with(&format!("{prefix}/"))
                    }
                };
                assert!(matches.iter().any(takes), "{request} is not in {matches:?}");
            }
        }
    }
}
