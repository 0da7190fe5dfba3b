//! Base64url without padding (RFC 7515 section 2): one text for each byte string, so that a signature has no second
//! spelling. Padding, white space, the other alphabet and set bits after the end are refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The bytes; `None` where the text is not strict base64url.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// The text.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_spelling_is_read() {
        assert_eq!(decode("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
        for text in ["-_8=", "-_9", "+/8", "-_ 8", "-_8\n", "A", "é"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
