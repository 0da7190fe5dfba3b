//! Rewrites host and path for the backend (`HTTPURLRewriteFilter`). Matching and logs keep the client's own.

use control_plane_model as model;
use gateway_engine::filter::{AttemptHead, HttpFilter, InvalidFilter, Stage};
use http::HeaderValue;

use crate::path::Rewrite;

/// New host and path, each where it is set.
#[derive(Clone, Debug)]
pub struct UrlRewrite {
    host: Option<HeaderValue>,
    path: Option<Rewrite>,
}

impl UrlRewrite {
    /// # Errors: [`InvalidFilter::Host`], [`InvalidFilter::Path`].
    pub fn new(spec: &model::UrlRewrite) -> Result<Self, InvalidFilter> {
        let host = spec.hostname.as_deref().map(crate::host).transpose()?;
        Ok(Self { host, path: spec.path.as_ref().map(Rewrite::new).transpose()? })
    }
}

impl HttpFilter for UrlRewrite {
    fn stage(&self) -> Stage {
        Stage::Rewrite
    }

    fn on_attempt(&self, attempt: &mut AttemptHead<'_>) {
        if let Some(host) = &self.host {
            attempt.set_host(host.clone());
        }
        if let Some(path) = self.path.as_ref().and_then(|path| path.apply(attempt.received)) {
            attempt.set_path_and_query(path);
        }
    }
}
