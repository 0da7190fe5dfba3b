//! What is wrong with the configuration right now, for people: in the log when it appears, on the admin port while it lasts.

use std::{collections::BTreeSet, fmt, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;

/// One thing that is wrong. Its text form is `file:line:column: object: field: message`, without what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// From 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// Kind, namespace and name: `HTTPRoute shop/cart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Path of the field: `spec.rules[0].matches`.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// The problems of the moment. Clones share the same list.
#[derive(Clone, Debug, Default)]
pub struct Problems(Arc<Mutex<BTreeSet<Problem>>>);

/// How a list of problems differs from the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Not there before.
    pub appeared: Vec<Problem>,
    /// No longer there.
    pub solved: Vec<Problem>,
}

impl Problems {
    /// Takes `now` as the whole list and tells what is new in it and what is gone.
    pub fn replace(&self, now: impl IntoIterator<Item = Problem>) -> Difference {
        let now: BTreeSet<_> = now.into_iter().collect();
        let before = std::mem::replace(&mut *self.0.lock(), now.clone());
        Difference {
            appeared: now.difference(&before).cloned().collect(),
            solved: before.difference(&now).cloned().collect(),
        }
    }

    /// The list, sorted by file, line and column.
    pub fn list(&self) -> Vec<Problem> {
        self.0.lock().iter().cloned().collect()
    }
}

impl Difference {
    /// Writes one line to the log for each.
    pub fn log(&self) {
        for problem in &self.appeared {
            tracing::warn!("{problem}");
        }
        for problem in &self.solved {
            tracing::info!("solved: {problem}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: u64) -> Problem {
        Problem { file: Some("a.yaml".into()), line: Some(line), message: "unknown field".into(), ..Problem::default() }
    }

    #[test]
    fn only_what_is_new_or_gone_is_told() {
        let problems = Problems::default();
        problems.replace([problem(1), problem(2)]);
        let difference = problems.replace([problem(2), problem(3)]);
        assert_eq!(difference, Difference { appeared: vec![problem(3)], solved: vec![problem(1)] });
        assert_eq!(problems.list(), [problem(2), problem(3)]);
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
