//! Strict JSON (RFC 8259, I-JSON of RFC 7493): a text is read only when every parser reads it the same way.
//!
//! Invariant: one pass, no recursion deeper than [`Limits::depth`], no value of the text in an error. What is accepted
//! may be forwarded byte for byte. Allocates the [`Value`] it returns.
//! Refused beside what RFC 8259 refuses: duplicate names, lone surrogates, a byte order mark and, by [`Numbers`], numbers
//! that a double does not hold.

use std::fmt;

use serde_json::{Map, Number, Value};

use crate::pointer;

/// What a text may cost and contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole text. Default 1 MiB.
    pub bytes: usize,
    /// Arrays and objects around the innermost value, 1 to 256; more counts as 256. Default 64.
    pub depth: usize,
    /// Which numbers are read.
    pub numbers: Numbers,
}

/// The deepest nesting that is read, whatever [`Limits::depth`] says: the parser recurses.
pub const MAX_DEPTH: usize = 256;

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 20, depth: 64, numbers: Numbers::Exact }
    }
}

/// What happens to a number that neither a 64-bit integer nor a double (IEEE 754 binary64) holds. One beyond the range of
/// a double is always refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// It is refused. A double holds a decimal that is its own value rounded to as many digits: `0.1`, `1e23`, and any
    /// other of up to 15 digits within its range.
    #[default]
    Exact,
    /// It is read as the nearest double, as most parsers do; the next one may do otherwise.
    Nearest,
}

/// Why a text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The text has more bytes than [`Limits::bytes`].
    #[error("too many bytes")]
    TooLarge,
    /// More nesting than [`Limits::depth`].
    #[error("nested too deeply")]
    TooDeep,
    /// The text is not UTF-8 (RFC 3629).
    #[error("not UTF-8")]
    Utf8,
    /// The text ends within a value.
    #[error("ends too early")]
    End,
    /// A byte that the grammar does not allow here, such as of `NaN` or a comment.
    #[error("unexpected character")]
    Syntax,
    /// Something follows the value.
    #[error("data after the value")]
    Trailing,
    /// The name occurs before in the same object. The offset is that of the second one.
    #[error("duplicate name")]
    DuplicateName,
    /// Half of a surrogate pair: no Unicode text contains it.
    #[error("lone surrogate")]
    LoneSurrogate,
    /// A control character that must be escaped.
    #[error("control character in a string")]
    Control,
    /// An escape that JSON does not know.
    #[error("invalid escape")]
    Escape,
    /// The number is not held exactly, or is beyond the range of a double; see [`Numbers`].
    #[error("number out of range or precision")]
    Number,
}

/// Where and why a text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// Bytes before the place.
    pub offset: usize,
    /// JSON Pointer to the value being read, at most [`MAX_POINTER_BYTES`](crate::MAX_POINTER_BYTES) long.
    pub pointer: String,
    /// What is wrong there.
    pub reason: Reason,
}

impl fmt::Display for ParseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {} (in \"{}\")", self.reason, self.offset, self.pointer)
    }
}

/// Reads the one value in `text`. Time is linear in its length, times the logarithm of an object's size.
///
/// # Errors: [`ParseError`], the first thing that is wrong.
pub fn parse(text: &[u8], limits: &Limits) -> Result<Value, ParseError> {
    let refuse = |offset, reason| ParseError { offset, pointer: String::new(), reason };
    if text.len() > limits.bytes {
        return Err(refuse(limits.bytes, Reason::TooLarge));
    }
    let text = std::str::from_utf8(text).map_err(|error| refuse(error.valid_up_to(), Reason::Utf8))?;
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0, numbers: limits.numbers };
    parser.value(limits.depth.min(MAX_DEPTH)).map_err(Failure::into_error).and_then(|value| {
        parser.skip_space();
        if parser.at == text.len() { Ok(value) } else { Err(refuse(parser.at, Reason::Trailing)) }
    })
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    numbers: Numbers,
}

/// A failure on its way out: each level adds its token. Small, so that the good path is fast.
struct Failure(Box<Details>);

struct Details {
    offset: usize,
    reason: Reason,
    /// Innermost first.
    tokens: Vec<Token>,
}

enum Token {
    Name(String),
    Index(usize),
}

impl Failure {
    fn new(offset: usize, reason: Reason) -> Self {
        Self(Box::new(Details { offset, reason, tokens: Vec::new() }))
    }

    fn within(mut self, token: Token) -> Self {
        self.0.tokens.push(token);
        self
    }

    fn into_error(self) -> ParseError {
        let Details { offset, reason, tokens } = *self.0;
        let mut pointer = String::new();
        for token in tokens.iter().rev() {
            match token {
                Token::Name(name) => pointer::push(&mut pointer, name),
                Token::Index(index) => pointer::push_index(&mut pointer, *index),
            }
        }
        ParseError { offset, pointer: pointer::bounded(pointer), reason }
    }
}

type Parsed<T> = Result<T, Failure>;

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn fail<T>(&self, reason: Reason) -> Parsed<T> {
        Err(Failure::new(self.at, reason))
    }

    /// The grammar allows nothing that is here.
    fn unexpected<T>(&self) -> Parsed<T> {
        self.fail(if self.at < self.bytes.len() { Reason::Syntax } else { Reason::End })
    }

    fn value(&mut self, depth: usize) -> Parsed<Value> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => Ok(Value::Number(self.number()?)),
            Some(b't') => self.word(b"true", Value::Bool(true)),
            Some(b'f') => self.word(b"false", Value::Bool(false)),
            Some(b'n') => self.word(b"null", Value::Null),
            _ => self.unexpected(),
        }
    }

    fn word(&mut self, word: &[u8], value: Value) -> Parsed<Value> {
        for byte in word {
            if self.peek() != Some(*byte) {
                return self.unexpected();
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn inner(&self, depth: usize) -> Parsed<usize> {
        depth.checked_sub(1).map_or_else(|| self.fail(Reason::TooDeep), Ok)
    }

    fn array(&mut self, depth: usize) -> Parsed<Value> {
        let depth = self.inner(depth)?;
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            let index = items.len();
            items.push(self.value(depth).map_err(|failure| failure.within(Token::Index(index)))?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return self.unexpected(),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Parsed<Value> {
        let depth = self.inner(depth)?;
        self.at += 1;
        let mut members = Map::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            let offset = self.at;
            if self.peek() != Some(b'"') {
                return self.unexpected();
            }
            let name = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return self.unexpected();
            }
            self.at += 1;
            let value = match self.value(depth) {
                Ok(value) => value,
                Err(failure) => return Err(failure.within(Token::Name(name))),
            };
            match members.entry(name) {
                serde_json::map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                serde_json::map::Entry::Occupied(entry) => {
                    let name = Token::Name(entry.key().clone());
                    return Err(Failure::new(offset, Reason::DuplicateName).within(name));
                }
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(members));
                }
                _ => return self.unexpected(),
            }
        }
    }

    fn string(&mut self) -> Parsed<String> {
        self.at += 1;
        let start = self.at;
        self.plain();
        // The quote and the backslash are ASCII, so that both ends lie between characters.
        let first = self.text.get(start..self.at).unwrap_or_default();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(first.to_owned());
        }
        let mut string = first.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                Some(_) => return self.fail(Reason::Control),
                None => return self.fail(Reason::End),
            }
            let start = self.at;
            self.plain();
            string.push_str(self.text.get(start..self.at).unwrap_or_default());
        }
    }

    /// Goes on to the next quote, backslash or control character, or to the end.
    fn plain(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.at += length.unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Parsed<char> {
        let offset = self.at;
        self.at += 1;
        let Some(kind) = self.peek() else { return self.fail(Reason::End) };
        self.at += 1;
        Ok(match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(offset),
            _ => return Err(Failure::new(offset, Reason::Escape)),
        })
    }

    fn unicode(&mut self, offset: usize) -> Parsed<char> {
        let lone = || Failure::new(offset, Reason::LoneSurrogate);
        let first = self.hex(offset)?;
        let scalar = match first {
            0xd800..=0xdbff => {
                if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                    return Err(lone());
                }
                self.at += 2;
                let second = self.hex(offset)?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(lone());
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        // Only a low surrogate is no scalar value here.
        char::from_u32(scalar).ok_or_else(lone)
    }

    fn hex(&mut self, offset: usize) -> Parsed<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(byte) = self.peek() else { return self.fail(Reason::End) };
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(Failure::new(offset, Reason::Escape));
            };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) -> Parsed<()> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.unexpected();
        }
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Parsed<Number> {
        let start = self.at;
        let mut is_integer = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            is_integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            is_integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        let written = self.text.get(start..self.at).unwrap_or_default();
        if is_integer {
            // `-0` is the double, as no integer has its sign.
            if let Ok(integer) = written.parse::<u64>() {
                return Ok(integer.into());
            }
            if let Ok(integer @ ..0) = written.parse::<i64>() {
                return Ok(integer.into());
            }
        }
        let double = written.parse::<f64>().ok().filter(|double| double.is_finite());
        let double = double.filter(|double| self.numbers == Numbers::Nearest || is_held(written, *double));
        double.and_then(Number::from_f64).ok_or_else(|| Failure::new(start, Reason::Number))
    }
}

/// Significant digits beyond which a number is refused: no double has more.
const MAX_DIGITS: usize = 767;

/// Whether `written`, which reads as `double`, is the double's own value rounded to as many digits.
fn is_held(written: &str, double: f64) -> bool {
    let count = significant_digits(written).count();
    if count == 0 || double == 0.0 {
        // Zero from other digits is an underflow.
        return count == 0;
    }
    // Every decimal of up to 15 digits comes back from a normal double (IEEE 754, C's DBL_DIG).
    if count <= 15 && double.abs() > 1e-300 {
        return true;
    }
    let matches = |rounded: &str| significant_digits(rounded).eq(significant_digits(written));
    // The two differ only where the value lies in the middle.
    count <= MAX_DIGITS && (matches(&format!("{double:.*e}", count - 1)) || matches(&format!("{double:e}")))
}

/// Digits without the zeros at both ends.
fn significant_digits(written: &str) -> impl Iterator<Item = u8> {
    let digits = written.split(['e', 'E']).next().unwrap_or_default();
    let digits = digits.trim_start_matches(['-', '0', '.']).trim_end_matches(['0', '.']);
    digits.bytes().filter(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Value, ParseError> {
        parse(text.as_bytes(), &Limits::default())
    }

    fn refusal(text: &[u8]) -> (Reason, usize, String) {
        let error = parse(text, &Limits::default()).unwrap_err();
        (error.reason, error.offset, error.pointer)
    }

    #[test]
    fn a_text_is_read() {
        let text =
            " {\"a\" : [1, -2, 3.5, -0.0, 1e2, true, false, null], \"\\u00e9\\ud83d\\ude00\\n\": {}, \"b\": []} ";
        let expected = json!({"a": [1, -2, 3.5, -0.0, 100.0, true, false, null], "é😀\n": {}, "b": []});
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn what_parsers_read_in_different_ways_is_refused_with_its_place() {
        let cases: &[(&[u8], Reason, usize, &str)] = &[
            (b"{\"a\":{\"b\":1,\"\\u0062\":2}}", Reason::DuplicateName, 12, "/a/b"),
            (b"[1,NaN]", Reason::Syntax, 3, "/1"),
            (b"Infinity", Reason::Syntax, 0, ""),
            (b"[-Infinity]", Reason::Syntax, 2, "/0"),
            (b"[\"\\ud800\"]", Reason::LoneSurrogate, 2, "/0"),
            (b"\"\\udc00\\ud800\"", Reason::LoneSurrogate, 1, ""),
            (b"\"\\ud800\\u0041\"", Reason::LoneSurrogate, 1, ""),
            (b"\"\xed\xa0\x80\"", Reason::Utf8, 1, ""),
            (b"\"\xc0\x80\"", Reason::Utf8, 1, ""),
            (b"\xef\xbb\xbf1", Reason::Syntax, 0, ""),
            (b"1 2", Reason::Trailing, 2, ""),
            (b"{} x", Reason::Trailing, 3, ""),
            (b"", Reason::End, 0, ""),
            (b"{\"a/b\": [", Reason::End, 9, "/a~1b/0"),
            (b"{\"a\": tru", Reason::End, 9, "/a"),
            (b"[1,]", Reason::Syntax, 3, "/1"),
            (b"{\"a\":1,}", Reason::Syntax, 7, ""),
            (b"{'a':1}", Reason::Syntax, 1, ""),
            (b"[1 /* x */]", Reason::Syntax, 3, ""),
            (b"\"a\nb\"", Reason::Control, 2, ""),
            (b"\"\\x41\"", Reason::Escape, 1, ""),
            (b"\"\\u12g4\"", Reason::Escape, 1, ""),
            (b"\"\\u12", Reason::End, 5, ""),
            (b"\"a", Reason::End, 2, ""),
            (b"01", Reason::Trailing, 1, ""),
            (b"+1", Reason::Syntax, 0, ""),
            (b"[.5]", Reason::Syntax, 1, "/0"),
            (b"1.", Reason::End, 2, ""),
            (b"1e", Reason::End, 2, ""),
            (b"-", Reason::End, 1, ""),
            (b"[1e400]", Reason::Number, 1, "/0"),
        ];
        for (text, reason, offset, pointer) in cases {
            assert_eq!(refusal(text), (*reason, *offset, (*pointer).to_owned()), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn numbers_that_no_double_holds_are_refused_or_rounded_by_choice() {
        let nearest = Limits { numbers: Numbers::Nearest, ..Limits::default() };
        for text in [
            "-9223372036854775809",
            "0.1000000000000000055",
            "3.141592653589793238",
            "1e-400",
            "9007199254740993.0",
            "5e-325",
        ] {
            assert_eq!(read(text).unwrap_err().reason, Reason::Number, "{text}");
            let rounded = parse(text.as_bytes(), &nearest).unwrap().as_f64().unwrap();
            assert_eq!(rounded.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
        assert!(parse(b"1e309", &nearest).is_err());
    }

    #[test]
    fn numbers_that_a_double_or_an_integer_holds_are_read() {
        for text in [
            "0",
            "-0",
            "0.0",
            "0e999999999999999999999",
            "-0.000",
            "0.1",
            "1.10",
            "100e-2",
            "18446744073709551615",
            "-9223372036854775808",
            "18446744073709551616",
            "4.9e-324",
            "1e23",
            "1e22",
            "1E+22",
            "100000000000000000000000",
            "5e-324",
            "1.7976931348623157e308",
            "0.30000000000000004",
            "9007199254740992.0",
            "0.00000123",
            "123456789012345e-10",
            "2.2250738585072014e-308",
            "10.0e-1",
        ] {
            let value = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(value.as_f64().unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
        assert_eq!(read("18446744073709551615").unwrap(), json!(u64::MAX));
        assert_eq!(read("-9223372036854775808").unwrap(), json!(i64::MIN));
    }

    #[test]
    fn size_and_depth_have_limits() {
        let limits = Limits { bytes: 8, depth: 2, numbers: Numbers::Exact };
        assert!(parse(b"[[1],{}]", &limits).is_ok());
        assert_eq!(parse(b"[[1],[]] ", &limits).unwrap_err().reason, Reason::TooLarge);
        let error = parse(b"[0,[[]]]", &limits).unwrap_err();
        assert_eq!((error.reason, error.offset, error.pointer.as_str()), (Reason::TooDeep, 4, "/1/0"));
        let deep = "[".repeat(100_000);
        let unlimited = Limits { depth: usize::MAX, ..Limits::default() };
        assert_eq!(parse(deep.as_bytes(), &unlimited).unwrap_err().reason, Reason::TooDeep);
    }

    #[test]
    fn an_error_does_not_contain_the_value() {
        let error = read("{\"card\": \"4111 1111\u{1}\"}").unwrap_err();
        assert_eq!(error.to_string(), "control character in a string at byte 19 (in \"/card\")");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |double| double.is_finite()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Whether two values differ at most in the last bits of their doubles: serde_json rounds some wrongly.
    fn same(left: &Value, right: &Value) -> bool {
        match (left, right) {
            (Value::Array(left), Value::Array(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
            }
            (Value::Object(left), Value::Object(right)) => {
                left.len() == right.len()
                    && left.iter().zip(right).all(|(left, right)| left.0 == right.0 && same(left.1, right.1))
            }
            (Value::Number(left), Value::Number(right)) if left.is_f64() && right.is_f64() => {
                let (left, right) = (left.as_f64().unwrap(), right.as_f64().unwrap());
                left.to_bits().abs_diff(right.to_bits()) <= 1
            }
            _ => left == right,
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_serde_json_reads_alike(
            text in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                r#"[\[\]{}",:0-9eE.+\-truefalsn \\u"]{0,40}"#.prop_map(String::into_bytes),
            ],
        ) {
            if let Ok(value) = parse(&text, &Limits::default()) {
                prop_assert!(same(&value, &serde_json::from_slice(&text).unwrap()));
            }
        }

        #[test]
        fn what_serde_json_writes_is_read(value in values()) {
            for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(&read(&text).unwrap(), &value);
            }
        }

        #[test]
        fn a_cut_text_is_refused(value in values(), cut in 0usize..400) {
            let text = serde_json::to_string(&Value::Array(vec![value])).unwrap();
            if let Some(cut) = text.as_bytes().get(..cut % text.len()) {
                prop_assert!(parse(cut, &Limits::default()).is_err());
            }
        }

        #[test]
        fn a_double_is_read_however_many_digits_it_is_written_with(double in any::<f64>(), digits in 16usize..40) {
            prop_assume!(double.is_finite());
            for text in [format!("{double:.digits$e}"), format!("{double:e}")] {
                prop_assert_eq!(read(&text).unwrap().as_f64().unwrap().to_bits(), double.to_bits(), "{}", text);
            }
        }

        #[test]
        fn a_number_that_is_off_by_one_in_the_eighteenth_digit_is_refused(double in 1e-300f64..1e300, up in any::<bool>()) {
            let text = format!("{double:.17e}");
            let (digits, exponent) = text.split_once('e').unwrap();
            let (rest, last) = digits.split_at(digits.len() - 1);
            let last: u8 = last.parse().unwrap();
            // A zero at the end would be no digit.
            let last = if up && last < 9 || last < 2 { last + 1 } else { last - 1 };
            let text = format!("{rest}{last}e{exponent}");
            if text.parse::<f64>().unwrap().to_bits() == double.to_bits() {
                prop_assert!(read(&text).is_err(), "{} of {:?}", text, double);
            }
        }
    }
}
