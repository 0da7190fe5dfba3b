//! Parameters of a query or a form (WHATWG URL, application/x-www-form-urlencoded).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The pairs, decoded, in their order. `None` where one is not UTF-8 or there are more than `most`.
pub fn form_decode(text: &str, most: usize) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        if pairs.len() == most {
            return None;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        pairs.push((decode(name)?, decode(value)?));
    }
    Some(pairs)
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// The pairs as a form or query.
pub fn form_encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text.extend(utf8_percent_encode(name, RESERVED));
        text.push('=');
        text.extend(utf8_percent_encode(value, RESERVED));
    }
    text
}

/// One value of the form's alphabet, as a name or password in Basic has it (RFC 6749 section 2.3.1).
pub(crate) fn encode_value(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// `url` with more parameters in its query.
pub(crate) fn with_parameters(url: &str, parameters: &str) -> String {
    let between = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{url}{between}{parameters}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_as_they_were() {
        let pairs = [("a b", "c&d=e"), ("ü", "+%"), ("empty", "")];
        let text = form_encode(pairs);
        let back = form_decode(&text, 3).unwrap();
        assert_eq!(back, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(form_decode(&text, 2), None);
        assert_eq!(form_decode("a=%ff", 9), None);
        assert_eq!(form_decode("a=b+c&&d", 9).unwrap(), [("a".into(), "b c".into()), ("d".into(), String::new())]);
    }

    #[test]
    fn a_query_that_is_there_is_kept() {
        assert_eq!(with_parameters("https://a/b", "c=d"), "https://a/b?c=d");
        assert_eq!(with_parameters("https://a/b?", "c=d"), "https://a/b?c=d");
        assert_eq!(with_parameters("https://a/b?e=f", "c=d"), "https://a/b?e=f&c=d");
    }
}
