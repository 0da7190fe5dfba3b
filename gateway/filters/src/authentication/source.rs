//! Where credentials are in a request, and how they are taken out of it.
//!
//! Invariant: of two credentials in one place neither is taken, since the backend might read the other one. Names of query
//! parameters are compared decoded, as a backend compares them.

use std::borrow::Cow;

use control_plane_model::TokenSource;
use gateway_engine::filter::Headers;
use http::{HeaderMap, HeaderValue, Uri, header, uri::PathAndQuery};
use percent_encoding::percent_decode_str;
use policy_jose::{CredentialsError, Scheme, credentials};

use super::password::{Login, login};

/// Credentials as they were presented, not yet checked. Has no `Debug` form: they are secrets.
pub(super) enum Presented<'a> {
    /// A token, or an API key.
    Token(Scheme, Cow<'a, str>),
    /// A name and a password.
    Login(Login),
}

/// Which schemes of `Authorization` are for a policy. All others are for the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schemes {
    /// `Bearer` and `DPoP`.
    pub(super) tokens: bool,
    /// `Basic`.
    pub(super) basic: bool,
}

impl Schemes {
    fn find(self, headers: &HeaderMap) -> Result<Option<Presented<'_>>, CredentialsError> {
        let values = headers.get_all(header::AUTHORIZATION);
        if let Some(found) = credentials(values.iter().map(HeaderValue::as_bytes))? {
            return Ok(self.tokens.then_some(Presented::Token(found.scheme, Cow::Borrowed(found.token))));
        }
        match values.iter().next() {
            Some(value) if self.basic => Ok(login(value)?.map(Presented::Login)),
            _ => Ok(None),
        }
    }
}

/// The credentials at `source`. `None` where there are none for this policy.
pub(super) fn find<'a>(
    source: &TokenSource,
    schemes: Schemes,
    headers: &'a HeaderMap,
    uri: &'a Uri,
) -> Result<Option<Presented<'a>>, CredentialsError> {
    match source {
        TokenSource::Authorization => schemes.find(headers),
        other => Ok(value(other, headers, uri)?.map(|token| Presented::Token(Scheme::Bearer, token))),
    }
}

/// The text at `source`, other than `Authorization`. Nothing and an empty text are the same.
fn value<'a>(
    source: &TokenSource,
    headers: &'a HeaderMap,
    uri: &'a Uri,
) -> Result<Option<Cow<'a, str>>, CredentialsError> {
    let readable = |bytes: &'a [u8]| std::str::from_utf8(bytes).map_err(|_| CredentialsError::Malformed);
    let found = match source {
        TokenSource::Authorization => None,
        TokenSource::Header(name) => {
            let values = headers.get_all(name).into_iter().map(HeaderValue::as_bytes);
            only(values)?.map(|bytes| readable(bytes.trim_ascii())).transpose()?.map(Cow::Borrowed)
        }
        TokenSource::Cookie(name) => {
            let values = cookies(headers).filter(|pair| cookie_name(pair) == name.as_bytes()).map(cookie_value);
            only(values)?.map(readable).transpose()?.map(Cow::Borrowed)
        }
        TokenSource::Query(name) => {
            let values = pairs(uri).filter(|pair| query_name(pair) == **name);
            let value = only(values)?.map(|pair| pair.split_once('=').map_or("", |(_, value)| value));
            let decoded = value.map(|value| percent_decode_str(value).decode_utf8());
            decoded.transpose().map_err(|_| CredentialsError::Malformed)?
        }
    };
    Ok(found.filter(|text| !text.is_empty()))
}

/// Takes the credentials out of the head that the backend gets; those of a query parameter, [`without_parameters`] does.
/// `Authorization` with another scheme stays: it is not for this policy.
pub(super) fn remove(source: &TokenSource, schemes: Schemes, headers: &mut Headers<'_>) {
    // None of these fields is protected.
    let _ = match source {
        TokenSource::Authorization => {
            if matches!(schemes.find(headers.all()), Ok(None)) {
                return;
            }
            headers.remove(&header::AUTHORIZATION)
        }
        TokenSource::Header(name) => headers.remove(name),
        TokenSource::Cookie(name) => {
            let is_there = cookies(headers.all()).any(|pair| cookie_name(pair) == name.as_bytes());
            if !is_there {
                return;
            }
            let kept: Vec<&[u8]> = cookies(headers.all()).filter(|pair| cookie_name(pair) != name.as_bytes()).collect();
            match HeaderValue::from_bytes(&kept.join(&b"; "[..])) {
                Ok(value) if !value.is_empty() => headers.set(&header::COOKIE, value),
                _ => headers.remove(&header::COOKIE),
            }
        }
        TokenSource::Query(_) => Ok(()),
    };
}

/// Path and query without the parameters of these names. `None` where it has none of them.
pub(super) fn without_parameters(uri: &Uri, names: &[&str]) -> Option<PathAndQuery> {
    let is_taken = |pair: &&str| names.iter().any(|name| query_name(pair) == *name);
    if !pairs(uri).any(|pair| is_taken(&pair)) {
        return None;
    }
    let kept: Vec<&str> = pairs(uri).filter(|pair| !is_taken(pair)).collect();
    let path = uri.path();
    let text = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    PathAndQuery::try_from(text).ok()
}

/// The one item, if there is one.
fn only<T>(mut items: impl Iterator<Item = T>) -> Result<Option<T>, CredentialsError> {
    let first = items.next();
    if items.next().is_some() { Err(CredentialsError::Several) } else { Ok(first) }
}

/// The pairs of every `Cookie` (HTTP/2 may split it, RFC 9113 section 8.2.3).
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(header::COOKIE).into_iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii)
}

fn cookie_name(pair: &[u8]) -> &[u8] {
    pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii()
}

fn cookie_value(pair: &[u8]) -> &[u8] {
    let start = pair.iter().position(|byte| *byte == b'=').map_or(pair.len(), |equals| equals + 1);
    pair.get(start..).unwrap_or_default().trim_ascii()
}

fn pairs(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty())
}

fn query_name(pair: &str) -> Cow<'_, str> {
    let name = pair.split_once('=').map_or(pair, |(name, _)| name);
    percent_decode_str(name).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn found(
        source: &TokenSource,
        fields: &[(&'static str, &'static str)],
        uri: &str,
    ) -> Result<Option<String>, CredentialsError> {
        let headers = headers(fields);
        let uri: Uri = uri.parse().unwrap();
        let schemes = Schemes { tokens: true, basic: false };
        find(source, schemes, &headers, &uri).map(|found| match found? {
            Presented::Token(_, token) => Some(token.into_owned()),
            Presented::Login(_) => panic!("no login is asked for"),
        })
    }

    #[test]
    fn each_place_gives_one_token_or_none() {
        use CredentialsError::{Malformed, Several};
        let header = TokenSource::Header(HeaderName::from_static("x-token"));
        let cookie = TokenSource::Cookie("token".into());
        let query = TokenSource::Query("access_token".into());
        type Row<'a> =
            (&'a TokenSource, &'a [(&'static str, &'static str)], &'a str, Result<Option<&'a str>, CredentialsError>);
        let rows: [Row<'_>; 17] = [
            (&TokenSource::Authorization, &[("authorization", "Bearer a.b.c")], "/", Ok(Some("a.b.c"))),
            (&TokenSource::Authorization, &[("authorization", "Basic YTpi")], "/", Ok(None)),
            (&TokenSource::Authorization, &[], "/?access_token=a", Ok(None)),
            (&header, &[("x-token", " a ")], "/", Ok(Some("a"))),
            (&header, &[("x-token", "")], "/", Ok(None)),
            (&header, &[("x-token", "a"), ("x-token", "a")], "/", Err(Several)),
            (&cookie, &[("cookie", "a=b; token=t; c=d")], "/", Ok(Some("t"))),
            (&cookie, &[("cookie", "a=b"), ("cookie", "token=t=")], "/", Ok(Some("t="))),
            (&cookie, &[("cookie", "Token=t; xtoken=u; token")], "/", Ok(None)),
            (&cookie, &[("cookie", "token=")], "/", Ok(None)),
            (&cookie, &[("cookie", "token=a; token=b")], "/", Err(Several)),
            (&cookie, &[("cookie", "token=a"), ("cookie", "token=a")], "/", Err(Several)),
            (&query, &[], "/?a=b&access_token=t%2B", Ok(Some("t+"))),
            (&query, &[], "/?access_token", Ok(None)),
            (&query, &[], "/?access_token=a&acce%73s_token=b", Err(Several)),
            (&query, &[], "/?access_token=%ff", Err(Malformed)),
            (&query, &[], "/", Ok(None)),
        ];
        for (source, fields, uri, expected) in rows {
            assert_eq!(found(source, fields, uri), expected.map(|token| token.map(str::to_owned)), "{fields:?} {uri}");
        }
    }

    #[test]
    fn parameters_are_taken_out_in_every_spelling_and_the_others_stay_as_they_are() {
        for (uri, expected) in [
            ("/a?b=%20&t=x&c", Some("/a?b=%20&c")),
            ("/a?t=x", Some("/a")),
            ("/a?%74=x&t", Some("/a")),
            ("/a?b=t", None),
            ("/a", None),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let rest = without_parameters(&uri, &["t"]);
            assert_eq!(rest.as_ref().map(PathAndQuery::as_str), expected, "{uri}");
        }
    }
}
