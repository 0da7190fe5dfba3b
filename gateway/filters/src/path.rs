//! Paths that filters write (`HTTPPathModifier`).

use std::sync::Arc;

use control_plane_model::PathRewrite;
use gateway_engine::filter::{InvalidFilter, Received};
use http::uri::PathAndQuery;

/// A path rewrite whose result is a path whatever the request.
#[derive(Clone, Debug)]
pub(crate) struct Rewrite(PathRewrite);

impl Rewrite {
    /// # Errors: [`InvalidFilter::Path`] for a text with a query, or with characters that no path has.
    pub(crate) fn new(spec: &PathRewrite) -> Result<Self, InvalidFilter> {
        let (PathRewrite::Full(text) | PathRewrite::Prefix(text)) = spec;
        let is_path = format!("/{text}").parse::<PathAndQuery>().is_ok_and(|path| path.query().is_none())
            && !text.contains(['?', '#'])
            && text.is_ascii();
        if !is_path {
            return Err(InvalidFilter::Path(text.to_string()));
        }
        let rooted = |text: &Arc<str>| -> Arc<str> {
            if text.starts_with('/') { text.clone() } else { format!("/{text}").into() }
        };
        Ok(Self(match spec {
            PathRewrite::Full(text) => PathRewrite::Full(rooted(text)),
            // Without closing slash; the rest of the path brings its own.
            PathRewrite::Prefix(text) => PathRewrite::Prefix(rooted(text).trim_end_matches('/').into()),
        }))
    }

    /// The new path with the request's query. A prefix rewrite leaves the path alone where no prefix was matched.
    pub(crate) fn apply(&self, received: &Received) -> Option<PathAndQuery> {
        let path = match (&self.0, received.matched_prefix) {
            (PathRewrite::Full(path), _) => path.to_string(),
            (PathRewrite::Prefix(replacement), Some(prefix)) => {
                let rest = received.uri.path().get(prefix..).unwrap_or_default();
                // A matched `/` takes the slash along with it.
                let separator = if rest.is_empty() || rest.starts_with('/') { "" } else { "/" };
                match format!("{replacement}{separator}{rest}") {
                    path if path.is_empty() => "/".to_owned(),
                    path => path,
                }
            }
            (PathRewrite::Prefix(_), None) => return None,
        };
        match received.uri.query() {
            None => PathAndQuery::try_from(path).ok(),
            Some(query) => PathAndQuery::try_from(format!("{path}?{query}")).ok(),
        }
    }
}
