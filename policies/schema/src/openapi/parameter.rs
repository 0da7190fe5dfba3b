//! Parameters as values: the styles of OpenAPI 3.1 §4.8.12.4, which are RFC 6570's.
//!
//! A text is cut at its delimiters first and percent-decoded after, so that an encoded delimiter belongs to a value. In
//! `spaceDelimited` and `pipeDelimited` the delimiter itself is encoded: `%20` (or `+`) and `%7C` (or `|`). Headers are not
//! percent-encoded. An array or object is cut once: arrays within arrays have no style.

use serde_json::{Map, Value};

use super::shape::{Form, Shape};

/// How a parameter is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Simple,
    Label,
    Matrix,
    Form,
    SpaceDelimited,
    PipeDelimited,
    DeepObject,
}

impl Style {
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "simple" => Self::Simple,
            "label" => Self::Label,
            "matrix" => Self::Matrix,
            "form" => Self::Form,
            "spaceDelimited" => Self::SpaceDelimited,
            "pipeDelimited" => Self::PipeDelimited,
            "deepObject" => Self::DeepObject,
            _ => return None,
        })
    }
}

/// The text is not written in the parameter's style.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What is written and how it is read.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) name: String,
    pub(crate) style: Style,
    pub(crate) explode: bool,
    pub(crate) shape: Shape,
}

/// A name and a value of a query, of a form or among cookies.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) name: String,
    /// Not decoded.
    value: &'a str,
    /// Whether a parameter stands for it.
    pub(crate) is_known: bool,
}

impl Pair<'_> {
    pub(crate) fn decoded(&self) -> Result<String, Malformed> {
        decode_form(self.value)
    }
}

/// The one text of a name.
pub(crate) fn single(pairs: &mut [Pair<'_>], name: &str, decode: Decode) -> Result<Option<String>, Malformed> {
    let mut found = None;
    for pair in pairs.iter_mut().filter(|pair| pair.name == name) {
        pair.is_known = true;
        if found.replace(decode(pair.value)?).is_some() {
            return Err(Malformed);
        }
    }
    Ok(found)
}

type Decode = fn(&str) -> Result<String, Malformed>;

/// Percent-decoding (RFC 3986 §2.1).
pub(crate) fn decode_percent(text: &str) -> Result<String, Malformed> {
    let mut escapes = text.split('%').skip(1);
    if !escapes.all(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2) {
        return Err(Malformed);
    }
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| Malformed)?;
    Ok(decoded.into_owned())
}

/// As `application/x-www-form-urlencoded` (URL Standard §5.1), which queries are written in: a plus is a space.
pub(crate) fn decode_form(text: &str) -> Result<String, Malformed> {
    decode_percent(&text.replace('+', " "))
}

/// As it is written, without white space around it.
#[expect(clippy::unnecessary_wraps, reason = "one of several decoders")]
fn decode_header(text: &str) -> Result<String, Malformed> {
    Ok(text.trim_matches([' ', '\t']).to_owned())
}

/// The pairs of a query or of a form.
pub(crate) fn pairs(text: &str) -> Result<Vec<Pair<'_>>, Malformed> {
    let pieces = text.split('&').filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Ok(Pair { name: decode_form(name)?, value, is_known: false })
        })
        .collect()
}

/// The pairs of a `Cookie` field (RFC 6265 §4.2.1).
pub(crate) fn cookies(text: &str) -> impl Iterator<Item = Pair<'_>> {
    let pieces = text.split(';').map(|piece| piece.trim_matches([' ', '\t'])).filter(|piece| !piece.is_empty());
    pieces.map(|piece| {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        Pair { name: name.to_owned(), value, is_known: false }
    })
}

impl Layout {
    /// Of a part of the path, in the styles simple, label and matrix.
    pub(crate) fn in_path(&self, text: &str) -> Result<Value, Malformed> {
        match self.style {
            Style::Label => {
                let text = text.strip_prefix('.').ok_or(Malformed)?;
                self.delimited(text, if self.explode { '.' } else { ',' }, decode_percent)
            }
            Style::Matrix => self.matrix(text.strip_prefix(';').ok_or(Malformed)?),
            _ => self.delimited(text, ',', decode_percent),
        }
    }

    /// Of the values of a header, in the style simple.
    pub(crate) fn in_header(&self, values: &[&str]) -> Result<Value, Malformed> {
        match (self.shape.form(), values) {
            // Several lines are one list (RFC 9110 §5.3), and a primitive is no list.
            (Form::Primitive, [value]) => self.delimited(value, ',', decode_header),
            (Form::Primitive, _) => Err(Malformed),
            _ => self.delimited(&values.join(","), ',', decode_header),
        }
    }

    /// Of a query, form or cookies; `None` where nothing is there for it. What is used is marked.
    pub(crate) fn in_pairs(&self, pairs: &mut [Pair<'_>], decode: Decode) -> Result<Option<Value>, Malformed> {
        let form = self.shape.form();
        if self.style == Style::DeepObject {
            return self.deep_object(pairs, decode);
        }
        if form == Form::Object && self.explode {
            return self.exploded_object(pairs, decode);
        }
        let mut texts = Vec::new();
        for pair in pairs.iter_mut().filter(|pair| pair.name == self.name) {
            pair.is_known = true;
            texts.push(pair.value);
        }
        if texts.is_empty() {
            return Ok(None);
        }
        if form == Form::Array && self.explode {
            let items = texts.into_iter().map(|text| Ok(self.shape.item(decode(text)?)));
            return Ok(Some(Value::Array(items.collect::<Result<_, Malformed>>()?)));
        }
        // Twice the same name: nobody knows which one the application takes.
        let [text] = texts.as_slice() else { return Err(Malformed) };
        if form == Form::Primitive {
            return Ok(Some(self.shape.value(decode(text)?)));
        }
        let with_delimiter = match self.style {
            Style::SpaceDelimited => text.replace("%20", " ").replace('+', " "),
            Style::PipeDelimited => text.replace("%7C", "|").replace("%7c", "|"),
            _ => (*text).to_owned(),
        };
        let delimiter = match self.style {
            Style::SpaceDelimited => ' ',
            Style::PipeDelimited => '|',
            _ => ',',
        };
        self.delimited(&with_delimiter, delimiter, decode).map(Some)
    }

    fn delimited(&self, text: &str, delimiter: char, decode: Decode) -> Result<Value, Malformed> {
        let parts = text.split(delimiter);
        match self.shape.form() {
            Form::Primitive => Ok(self.shape.value(decode(text)?)),
            Form::Array => {
                let items = parts.map(|part| Ok(self.shape.item(decode(part)?)));
                Ok(Value::Array(items.collect::<Result<_, Malformed>>()?))
            }
            Form::Object if self.explode && matches!(self.style, Style::Simple | Style::Label) => {
                self.object(parts.map(|part| part.split_once('=').ok_or(Malformed)), decode)
            }
            Form::Object => {
                let parts: Vec<&str> = parts.collect();
                let couples = parts.chunks(2).map(|couple| match couple {
                    [name, value] => Ok((*name, *value)),
                    _ => Err(Malformed),
                });
                self.object(couples, decode)
            }
        }
    }

    fn matrix(&self, text: &str) -> Result<Value, Malformed> {
        let named = |part: &str| match part.split_once('=') {
            Some((name, value)) if name == self.name => Ok(value.to_owned()),
            None if part == self.name => Ok(String::new()),
            _ => Err(Malformed),
        };
        match self.shape.form() {
            Form::Array if self.explode => {
                let items = text.split(';').map(|part| Ok(self.shape.item(decode_percent(&named(part)?)?)));
                Ok(Value::Array(items.collect::<Result<_, Malformed>>()?))
            }
            Form::Object if self.explode => {
                self.object(text.split(';').map(|part| part.split_once('=').ok_or(Malformed)), decode_percent)
            }
            _ => self.delimited(&named(text)?, ',', decode_percent),
        }
    }

    fn object<'t>(
        &self,
        parts: impl Iterator<Item = Result<(&'t str, &'t str), Malformed>>,
        decode: Decode,
    ) -> Result<Value, Malformed> {
        let mut members = Map::new();
        for part in parts {
            let (name, value) = part?;
            self.add(&mut members, decode(name)?, decode(value)?)?;
        }
        Ok(Value::Object(members))
    }

    fn add(&self, members: &mut Map<String, Value>, name: String, text: String) -> Result<(), Malformed> {
        let value = match self.shape.property(&name) {
            Some(shape) => shape.value(text),
            None => Value::String(text),
        };
        if members.insert(name, value).is_some() { Err(Malformed) } else { Ok(()) }
    }

    /// Each property is a pair of its own: those that the schema names, and all others where it asks for some.
    fn exploded_object(&self, pairs: &mut [Pair<'_>], decode: Decode) -> Result<Option<Value>, Malformed> {
        let mut members = Map::new();
        for (name, shape) in &self.shape.properties {
            let layout = Self {
                name: name.clone(),
                style: Style::Form,
                explode: shape.form() == Form::Array,
                shape: shape.clone(),
            };
            if let Some(value) = layout.in_pairs(pairs, decode)? {
                members.insert(name.clone(), value);
            }
        }
        if self.shape.additional.is_some() {
            for pair in pairs.iter_mut().filter(|pair| !pair.is_known) {
                pair.is_known = true;
                self.add(&mut members, pair.name.clone(), decode(pair.value)?)?;
            }
        }
        Ok(if members.is_empty() { None } else { Some(Value::Object(members)) })
    }

    /// `name[property]=value`.
    fn deep_object(&self, pairs: &mut [Pair<'_>], decode: Decode) -> Result<Option<Value>, Malformed> {
        let mut members: Map<String, Value> = Map::new();
        for pair in pairs.iter_mut() {
            let Some(rest) = pair.name.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('[')) else {
                continue;
            };
            pair.is_known = true;
            let property = rest.strip_suffix(']').filter(|property| !property.contains(['[', ']'])).ok_or(Malformed)?;
            let text = decode(pair.value)?;
            match self.shape.property(property) {
                // The document says nothing of arrays here; the usual way is to repeat the name.
                Some(shape) if shape.form() == Form::Array => {
                    let items = members.entry(property).or_insert_with(|| Value::Array(Vec::new()));
                    items.as_array_mut().ok_or(Malformed)?.push(shape.item(text));
                }
                _ => self.add(&mut members, property.to_owned(), text)?,
            }
        }
        Ok(if members.is_empty() { None } else { Some(Value::Object(members)) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn layout(style: &str, explode: bool, schema: &Value) -> Layout {
        let style = Style::of(style).unwrap();
        Layout { name: "color".to_owned(), style, explode, shape: Shape::of(&Value::Null, schema) }
    }

    fn read(layout: &Layout, text: &str) -> Result<Option<Value>, Malformed> {
        match layout.style {
            Style::Simple | Style::Label | Style::Matrix => layout.in_path(text).map(Some),
            _ => layout.in_pairs(&mut pairs(text)?, decode_form),
        }
    }

    fn string() -> Value {
        json!({"type": "string"})
    }

    fn array() -> Value {
        json!({"type": "array", "items": {"type": "string"}})
    }

    fn object() -> Value {
        json!({"type": "object", "properties": {
            "R": {"type": "integer"}, "G": {"type": "integer"}, "B": {"type": "integer"},
        }})
    }

    /// "Style Examples" of OpenAPI 3.1.1 §4.8.12.5, row by row. (3.0.0 to 3.0.3 and 3.1.0 have points where label without
    /// explode has commas, which RFC 6570 has too.)
    #[test]
    fn the_examples_of_each_style_are_read() {
        let (string, array, object) = (string(), array(), object());
        for (style, explode, schema, text) in [
            ("matrix", false, &string, ";color=blue"),
            ("matrix", false, &array, ";color=blue,black,brown"),
            ("matrix", false, &object, ";color=R,100,G,200,B,150"),
            ("matrix", true, &string, ";color=blue"),
            ("matrix", true, &array, ";color=blue;color=black;color=brown"),
            ("matrix", true, &object, ";R=100;G=200;B=150"),
            ("label", false, &string, ".blue"),
            ("label", false, &array, ".blue,black,brown"),
            ("label", false, &object, ".R,100,G,200,B,150"),
            ("label", true, &string, ".blue"),
            ("label", true, &array, ".blue.black.brown"),
            ("label", true, &object, ".R=100.G=200.B=150"),
            ("simple", false, &string, "blue"),
            ("simple", false, &array, "blue,black,brown"),
            ("simple", false, &object, "R,100,G,200,B,150"),
            ("simple", true, &string, "blue"),
            ("simple", true, &array, "blue,black,brown"),
            ("simple", true, &object, "R=100,G=200,B=150"),
            ("form", false, &string, "color=blue"),
            ("form", false, &array, "color=blue,black,brown"),
            ("form", false, &object, "color=R,100,G,200,B,150"),
            ("form", true, &string, "color=blue"),
            ("form", true, &array, "color=blue&color=black&color=brown"),
            ("form", true, &object, "R=100&G=200&B=150"),
            ("spaceDelimited", false, &array, "color=blue%20black%20brown"),
            ("spaceDelimited", false, &object, "color=R%20100%20G%20200%20B%20150"),
            ("pipeDelimited", false, &array, "color=blue%7Cblack%7Cbrown"),
            ("pipeDelimited", false, &array, "color=blue|black|brown"),
            ("pipeDelimited", false, &object, "color=R%7C100%7CG%7C200%7CB%7C150"),
            ("deepObject", true, &object, "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150"),
            ("deepObject", true, &object, "color[R]=100&color[G]=200&color[B]=150"),
        ] {
            let expected = match Shape::of(&Value::Null, schema).form() {
                Form::Primitive => json!("blue"),
                Form::Array => json!(["blue", "black", "brown"]),
                Form::Object => json!({"R": 100, "G": 200, "B": 150}),
            };
            assert_eq!(read(&layout(style, explode, schema), text), Ok(Some(expected)), "{style} {explode} {text}");
        }
    }

    #[test]
    fn the_empty_column_is_an_empty_string() {
        for (style, explode, text) in [
            ("matrix", false, ";color"),
            ("matrix", true, ";color"),
            ("label", false, "."),
            ("label", true, "."),
            ("form", false, "color="),
            ("form", true, "color="),
            ("form", true, "color"),
        ] {
            assert_eq!(read(&layout(style, explode, &string()), text), Ok(Some(json!(""))), "{style} {explode}");
        }
    }

    #[test]
    fn an_encoded_delimiter_belongs_to_the_value() {
        for (style, text) in [("simple", "a%2Cb,c"), ("form", "color=a%2Cb,c"), ("label", ".a%2cb,c")] {
            assert_eq!(read(&layout(style, false, &array()), text), Ok(Some(json!(["a,b", "c"]))), "{style}");
        }
    }

    #[test]
    fn what_is_not_in_the_style_is_malformed() {
        let (string, array, object) = (string(), array(), object());
        for (style, explode, schema, text) in [
            ("matrix", false, &string, "color=blue"),
            ("matrix", false, &string, ";colour=blue"),
            ("matrix", true, &array, ";color=blue;shade=black"),
            ("label", false, &string, "blue"),
            ("simple", false, &object, "R,100,G"),
            ("simple", true, &object, "R=100,G"),
            ("simple", true, &object, "R=100,R=200"),
            ("simple", false, &string, "%zz"),
            ("simple", false, &string, "100%"),
            ("simple", false, &string, "%ff"),
            ("form", true, &string, "color=a&color=b"),
            ("form", false, &array, "color=a&color=b"),
            ("form", true, &object, "R=1&R=2"),
            ("deepObject", true, &object, "color[R]=1&color[R]=2"),
            ("deepObject", true, &object, "color[R][x]=1"),
            ("deepObject", true, &object, "color[R=1"),
        ] {
            assert_eq!(read(&layout(style, explode, schema), text), Err(Malformed), "{style} {explode} {text}");
        }
    }

    #[test]
    fn a_text_becomes_what_the_schema_allows() {
        for (schema, text, value) in [
            (json!({"type": "integer"}), "7", json!(7)),
            (json!({"type": "integer"}), "7x", json!("7x")),
            (json!({"type": "number"}), "1e3", json!(1000.0)),
            (json!({"type": "number"}), " 1", json!(" 1")),
            (json!({"type": "number"}), "NaN", json!("NaN")),
            (json!({"type": "boolean"}), "true", json!(true)),
            (json!({"type": "boolean"}), "TRUE", json!("TRUE")),
            (json!({"type": "string"}), "7", json!("7")),
            (json!({"type": ["integer", "null"]}), "", json!(null)),
            (json!({"type": ["string", "null"]}), "", json!("")),
            (json!({}), "7", json!("7")),
            (json!({"enum": [1, 2]}), "2", json!(2)),
            (json!({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}), "false", json!(false)),
            (json!({"allOf": [{"minimum": 3}, {"type": "integer"}]}), "7", json!(7)),
        ] {
            assert_eq!(Shape::of(&Value::Null, &schema).value(text.to_owned()), value, "{schema} {text}");
        }
    }

    #[test]
    fn a_header_on_several_lines_is_a_list_and_no_primitive() {
        let numbers = json!({"type": "array", "items": {"type": "integer"}});
        assert_eq!(layout("simple", false, &numbers).in_header(&["1, 2", "3"]), Ok(json!([1, 2, 3])));
        assert_eq!(layout("simple", false, &string()).in_header(&["a", "b"]), Err(Malformed));
        assert_eq!(layout("simple", false, &string()).in_header(&["50%, b"]), Ok(json!("50%, b")));
    }

    #[test]
    fn an_exploded_object_with_more_properties_takes_what_is_left() {
        let schema = json!({"type": "object", "additionalProperties": {"type": "integer"}});
        let mut query = pairs("a=1&b=2&q=x").unwrap();
        query[2].is_known = true;
        let value = layout("form", true, &schema).in_pairs(&mut query, decode_form);
        assert_eq!(value, Ok(Some(json!({"a": 1, "b": 2}))));
        assert!(query.iter().all(|pair| pair.is_known));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), style in 0usize..7, explode in any::<bool>(), schema in 0usize..3) {
            let styles = ["simple", "label", "matrix", "form", "spaceDelimited", "pipeDelimited", "deepObject"];
            let schema = [string(), array(), object()][schema].clone();
            let layout = layout(styles[style], explode, &schema);
            let _ = read(&layout, &text);
            let _ = read(&layout, &format!("color={text}"));
            let _ = layout.in_header(&[&text]);
            let _ = layout.in_pairs(&mut cookies(&text).collect::<Vec<_>>(), decode_percent);
        }
    }
}
