//! Answers with a redirect (`HTTPRequestRedirectFilter`).

use bytes::Bytes;
use control_plane_model::{self as model, RedirectScheme};
use gateway_engine::{
    filter::{HttpFilter, InvalidFilter, Received, RequestContext, Stage, Verdict},
    local_reply::{LocalReply, Reason},
    strict::Scheme,
};
use http::{HeaderValue, Response, StatusCode, header};

use crate::path::Rewrite;

/// Where to; what is `None` stays as in the request.
#[derive(Clone, Debug)]
pub struct RequestRedirect {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    path: Option<Rewrite>,
    port: Option<u16>,
    status: StatusCode,
}

impl RequestRedirect {
    /// # Errors: [`InvalidFilter::Host`], [`InvalidFilter::Path`], [`InvalidFilter::Status`].
    pub fn new(spec: &model::RequestRedirect) -> Result<Self, InvalidFilter> {
        if !matches!(spec.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err(InvalidFilter::Status(spec.status));
        }
        if let Some(host) = spec.hostname.as_deref() {
            crate::host(host)?;
        }
        Ok(Self {
            scheme: spec.scheme.map(|scheme| match scheme {
                RedirectScheme::Http => Scheme::Http,
                RedirectScheme::Https => Scheme::Https,
            }),
            host: spec.hostname.as_deref().map(Into::into),
            path: spec.path.as_ref().map(Rewrite::new).transpose()?,
            port: spec.port.map(std::num::NonZeroU16::get),
            status: spec.status,
        })
    }

    /// The whole URL. Without a port of its own: the redirect's scheme decides, and without that the listener's port.
    /// A scheme's own port is left out.
    fn location(&self, received: &Received) -> String {
        let scheme = self.scheme.unwrap_or(received.scheme);
        let host = self.host.as_deref().unwrap_or(&received.host);
        let port = match (self.port, self.scheme) {
            (Some(port), _) => port,
            (None, Some(scheme)) => scheme.default_port(),
            (None, None) => received.listener_port,
        };
        let path = self.path.as_ref().and_then(|path| path.apply(received));
        let path = path.as_ref().or(received.uri.path_and_query()).map_or("/", |path| path.as_str());
        if port == scheme.default_port() {
            format!("{}://{host}{path}", scheme.as_str())
        } else {
            format!("{}://{host}:{port}{path}", scheme.as_str())
        }
    }
}

impl HttpFilter for RequestRedirect {
    fn stage(&self) -> Stage {
        Stage::Redirect
    }

    async fn on_request(&self, request: &mut RequestContext<'_>) -> Verdict {
        let Ok(location) = HeaderValue::try_from(self.location(request.received)) else {
            return Verdict::Reply(LocalReply::from(Reason::Internal));
        };
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::LOCATION, location);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        Verdict::Respond(response)
    }
}
