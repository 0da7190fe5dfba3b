//! A claim as the value of a header. Invariant: every byte is visible ASCII or a space inside, so that no claim can end a
//! header, begin another one, or be read differently by two servers (RFC 9110 section 5.5).

use std::fmt::Write as _;

use serde_json::Value;

use crate::base64url;

/// Longest value that is written, in bytes.
pub const MAX_HEADER_VALUE_BYTES: usize = 8 * 1024;

/// How the text of a string (or, with [`ListEncoding::Json`], of the JSON) becomes ASCII. One rule for every value: a
/// receiver could not tell a text that is encoded only when it must be from one that looks alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextEncoding {
    /// As it is. What has other than visible ASCII and spaces inside is refused.
    Visible,
    /// Always base64url without padding, of UTF-8.
    Base64Url,
}

/// How an array becomes one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListEncoding {
    /// Items with `,` between them. With [`TextEncoding::Visible`] a comma, a space or a percent sign in an item is
    /// `%2C`, `%20` or `%25`, so that splitting at commas is always right. An empty item, an object and an array inside
    /// are refused. An object that is not in an array is refused too.
    Comma,
    /// Arrays and objects as compact JSON in ASCII: what is not visible ASCII is written as `\u` and four digits.
    Json,
}

/// How claims are written into a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HeaderEncoding {
    /// Of strings.
    pub text: TextEncoding,
    /// Of arrays and objects.
    pub list: ListEncoding,
}

/// Why a claim has no value. The header must then be absent, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Unwritable {
    /// `null` is as good as absent.
    #[error("the claim is null")]
    Null,
    /// A character that a header cannot carry.
    #[error("the claim has a character that a header cannot carry")]
    NotVisible,
    /// An object or an array where the encoding has no form for one, or an empty item.
    #[error("the claim has a form that the encoding does not know")]
    Structure,
    /// More than [`MAX_HEADER_VALUE_BYTES`].
    #[error("the claim is too long for a header")]
    TooLong,
}

impl HeaderEncoding {
    /// The value for `claim`. Numbers and booleans are written as in JSON, and never in base64url.
    ///
    /// # Errors
    /// See [`Unwritable`].
    pub fn write(self, claim: &Value) -> Result<String, Unwritable> {
        let value = match (claim, self.list) {
            (Value::Array(items), ListEncoding::Comma) => {
                let items: Result<Vec<String>, _> = items.iter().map(|item| self.item(item)).collect();
                items?.join(",")
            }
            (Value::Array(_) | Value::Object(_), ListEncoding::Json) => self.text(&ascii_json(claim))?,
            (scalar, _) => self.scalar(scalar)?,
        };
        if value.len() > MAX_HEADER_VALUE_BYTES { Err(Unwritable::TooLong) } else { Ok(value) }
    }

    fn scalar(self, value: &Value) -> Result<String, Unwritable> {
        match value {
            Value::Null => Err(Unwritable::Null),
            Value::Bool(value) => Ok(value.to_string()),
            Value::Number(value) => Ok(value.to_string()),
            Value::String(value) => self.text(value),
            Value::Array(_) | Value::Object(_) => Err(Unwritable::Structure),
        }
    }

    fn item(self, value: &Value) -> Result<String, Unwritable> {
        match value {
            Value::Null => Err(Unwritable::Structure),
            Value::String(text) if text.is_empty() => Err(Unwritable::Structure),
            Value::String(text) if self.text == TextEncoding::Visible => {
                self.text(&text.replace('%', "%25").replace(',', "%2C").replace(' ', "%20"))
            }
            other => self.scalar(other),
        }
    }

    fn text(self, text: &str) -> Result<String, Unwritable> {
        match self.text {
            TextEncoding::Base64Url => Ok(base64url::encode(text.as_bytes())),
            TextEncoding::Visible => {
                let is_visible = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
                let keeps_its_ends = !text.starts_with(' ') && !text.ends_with(' ');
                if is_visible && keeps_its_ends { Ok(text.to_owned()) } else { Err(Unwritable::NotVisible) }
            }
        }
    }
}

/// Compact JSON; outside strings it is ASCII without control characters anyway.
fn ascii_json(value: &Value) -> String {
    let mut output = String::new();
    for character in value.to_string().chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            output.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(output, "\\u{unit:04x}");
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const fn encoding(text: TextEncoding, list: ListEncoding) -> HeaderEncoding {
        HeaderEncoding { text, list }
    }

    const PLAIN: HeaderEncoding = encoding(TextEncoding::Visible, ListEncoding::Comma);
    const JSON: HeaderEncoding = encoding(TextEncoding::Visible, ListEncoding::Json);
    const ENCODED: HeaderEncoding = encoding(TextEncoding::Base64Url, ListEncoding::Comma);

    #[test]
    fn each_form_has_its_stated_value() {
        for (encoding, claim, value) in [
            (PLAIN, json!("a b"), Ok("a b")),
            (PLAIN, json!(""), Ok("")),
            (PLAIN, json!(-5), Ok("-5")),
            (PLAIN, json!(true), Ok("true")),
            (PLAIN, json!(["a", "b,c", "50% d", 1, false]), Ok("a,b%2Cc,50%25%20d,1,false")),
            (PLAIN, json!([]), Ok("")),
            (PLAIN, json!("Jürgen"), Err(Unwritable::NotVisible)),
            (PLAIN, json!("a\r\nx-admin: 1"), Err(Unwritable::NotVisible)),
            (PLAIN, json!(["a\n"]), Err(Unwritable::NotVisible)),
            (PLAIN, json!(" a"), Err(Unwritable::NotVisible)),
            (PLAIN, json!(null), Err(Unwritable::Null)),
            (PLAIN, json!({"a": 1}), Err(Unwritable::Structure)),
            (PLAIN, json!([["a"]]), Err(Unwritable::Structure)),
            (PLAIN, json!([""]), Err(Unwritable::Structure)),
            (PLAIN, json!([null]), Err(Unwritable::Structure)),
            (PLAIN, json!("a".repeat(MAX_HEADER_VALUE_BYTES + 1)), Err(Unwritable::TooLong)),
            (JSON, json!(["a,b", {"c": "\u{7f}é😀\n"}]), Ok(r#"["a,b",{"c":"\u007f\u00e9\ud83d\ude00\n"}]"#)),
            (JSON, json!("a"), Ok("a")),
            (ENCODED, json!("Jürgen"), Ok("SsO8cmdlbg")),
            (ENCODED, json!(["a,", "b", 1]), Ok("YSw,Yg,1")),
            (encoding(TextEncoding::Base64Url, ListEncoding::Json), json!(["a"]), Ok("WyJhIl0")),
        ] {
            assert_eq!(encoding.write(&claim), value.map(str::to_owned), "{encoding:?} {claim:.60}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_visible_and_json_reads_back(texts in prop::collection::vec(any::<String>(), 0..4)) {
            let claim = json!(texts);
            for text in [TextEncoding::Visible, TextEncoding::Base64Url] {
                for list in [ListEncoding::Comma, ListEncoding::Json] {
                    if let Ok(value) = encoding(text, list).write(&claim) {
                        prop_assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                    }
                }
            }
            let value = JSON.write(&claim);
            if let Ok(value) = value {
                prop_assert_eq!(serde_json::from_str::<Value>(&value).unwrap(), claim);
            }
        }
    }
}
