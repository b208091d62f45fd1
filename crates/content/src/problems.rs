//! Several failures at once: nobody should have to run a command ten times to learn of ten missing images.

use std::fmt;

use crate::{Failure, Kind};

/// One failure and what it is about: an image, a file and line.
#[derive(Debug)]
pub struct Problem {
    /// What it is about, for people.
    pub subject: String,
    /// What went wrong.
    pub failure: Box<dyn Failure>,
}

/// All failures of a step. Never empty where it is returned as an error.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>, Vec<String>);

impl Problems {
    /// One failure.
    pub fn one(subject: impl Into<String>, failure: impl Failure) -> Self {
        let mut problems = Self::default();
        problems.add(subject, failure);
        problems
    }

    /// Adds a failure.
    pub fn add(&mut self, subject: impl Into<String>, failure: impl Failure) {
        self.0.push(Problem { subject: subject.into(), failure: Box::new(failure) });
    }

    /// Takes over all of `other`.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
        self.1.append(&mut other.1);
    }

    /// Adds what is no failure, but must not be lost because of one.
    pub fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        self.1.extend(warnings);
    }

    /// What was said beside the failures.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.1
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value`, unless there is a failure.
    ///
    /// # Errors
    /// These problems, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// The class that decides the exit code: the lowest from 3 up, else the highest below it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let kinds = || self.0.iter().map(|p| p.failure.kind());
        kinds().filter(|k| *k >= Kind::Untrusted).min().or_else(|| kinds().max()).unwrap_or(Kind::Invalid)
    }
}

impl<E: Failure> From<E> for Problems {
    fn from(failure: E) -> Self {
        Self::one("", failure)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            write!(f, "{}", self.failure)
        } else {
            write!(f, "{}: {}", self.subject, self.failure)
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed")]
    struct Of(Kind);

    impl Failure for Of {
        fn kind(&self) -> Kind {
            self.0
        }
    }

    #[test]
    fn the_lowest_code_from_three_up_wins() {
        for (kinds, wins) in [
            (vec![Kind::Remote, Kind::Missing], Kind::Missing),
            (vec![Kind::Invalid, Kind::Conflict], Kind::Conflict),
            (vec![Kind::Invalid, Kind::Usage], Kind::Usage),
            (vec![Kind::Local, Kind::Untrusted, Kind::Invalid], Kind::Untrusted),
        ] {
            let mut problems = Problems::default();
            for kind in kinds {
                problems.add("x", Of(kind));
            }
            assert_eq!(problems.kind(), wins);
        }
    }
}
