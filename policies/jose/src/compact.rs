//! The compact form of a JWS (RFC 7515 section 7.1): three parts of strict base64url.

use serde_json::{Map, Value};

use crate::base64url;
use crate::json::{self, JsonError};
use crate::reason::Reason;

/// A token's parts. The payload stays as it is until the signature has been checked.
pub(crate) struct Compact<'a> {
    pub header: Map<String, Value>,
    payload: &'a str,
    /// What the signature is over.
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
}

impl<'a> Compact<'a> {
    /// # Errors: [`Reason::TooLarge`], [`Reason::Malformed`], [`Reason::MalformedHeader`], [`Reason::DuplicateMember`].
    pub fn parse(token: &'a str, max_bytes: usize) -> Result<Self, Reason> {
        if token.len() > max_bytes {
            return Err(Reason::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Reason::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Reason::Malformed)?;
        let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if payload.is_empty() || !payload.bytes().all(is_digit) {
            return Err(Reason::Malformed);
        }
        let header = base64url::decode(header).ok_or(Reason::Malformed)?;
        let signature = base64url::decode(signature).ok_or(Reason::Malformed)?;
        let header = members(&header, Reason::MalformedHeader)?;
        Ok(Self { header, payload, signed: signed.as_bytes(), signature })
    }

    /// A text of the header.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Reason> {
        self.header.get(name).map(|value| value.as_str().ok_or(Reason::MalformedHeader)).transpose()
    }

    /// `typ` in its short form and in lower case.
    pub fn kind(&self) -> Result<Option<String>, Reason> {
        Ok(self.text("typ")?.map(normal_type))
    }

    /// To be read after the signature has been checked.
    pub fn claims(&self) -> Result<Map<String, Value>, Reason> {
        let payload = base64url::decode(self.payload).ok_or(Reason::Malformed)?;
        members(&payload, Reason::MalformedClaims)
    }
}

fn members(text: &[u8], otherwise: Reason) -> Result<Map<String, Value>, Reason> {
    json::parse_object(text).map_err(|error| match error {
        JsonError::NotAnObject => otherwise,
        JsonError::DuplicateMember => Reason::DuplicateMember,
    })
}

/// RFC 7515 section 4.1.9: `application/` may be left out, and media types ignore case.
pub(crate) fn normal_type(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    name.strip_prefix("application/").filter(|rest| !rest.contains('/')).map(str::to_owned).unwrap_or(name)
}
