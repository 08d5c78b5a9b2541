//! What is wrong with a plan, one line each.

use core::fmt;

/// How many mistakes are told at once.
pub const MAX_PROBLEMS: usize = 20;

/// Why there is no plan. Displayed as one line per mistake, `PLACE: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// What is wrong; at least one, at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// As a person finds it: `handler 2 "paid", when, status`.
    pub place: String,
    /// What was found and what was wanted.
    pub what: String,
}

impl PlanError {
    /// A single mistake.
    pub(super) fn one(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { problems: vec![Problem { place: place.into(), what: what.into() }] }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{}: {}", problem.place, problem.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanError {}
