//! What is wrong with the configuration, for people and for editors.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// One thing that is wrong. Its text form is `file:line:column: object: field: message`, without what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// From 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// From 1, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// Kind, namespace and name: `HTTPRoute shop/cart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Path of the field: `spec.rules[0].matches`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong. Holds no secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{}", file.display())?;
            for number in [self.line, self.column].into_iter().flatten() {
                write!(formatter, ":{number}")?;
            }
            formatter.write_str(": ")?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(formatter, "{part}: ")?;
        }
        formatter.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u64) -> Problem {
        Problem { file: Some("a.yaml".into()), line: Some(line), message: "unknown field".into(), ..Problem::default() }
    }

    #[test]
    fn the_text_begins_with_the_place_as_editors_read_it() {
        let full = Problem {
            column: Some(7),
            object: Some("HTTPRoute shop/cart".into()),
            field: Some("spec.rules[0].x".into()),
            ..problem(12)
        };
        assert_eq!(full.to_string(), "a.yaml:12:7: HTTPRoute shop/cart: spec.rules[0].x: unknown field");
        assert_eq!(problem(12).to_string(), "a.yaml:12: unknown field");
    }
}
