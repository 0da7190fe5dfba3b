//! What is wrong with the configuration right now, for people: in the log when it appears, on the admin port while it lasts.

use std::{collections::BTreeSet, sync::Arc};

use control_plane_files::Problem;
use parking_lot::Mutex;

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
}
