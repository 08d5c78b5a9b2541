//! What is wrong with a configuration file, one line each.

use core::fmt;
use core::ops::Range;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The file says something wrong. Displayed as one line per problem, `FILE:LINE: what`.
    Wrong {
        /// Which, if it is a file.
        path: Option<PathBuf>,
        /// What, in the order of the file; at least one.
        problems: Vec<(usize, String)>,
    },
}

/// One thing that is wrong, and where in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Where the same stands for the first time, if that is what is wrong.
    pub first: Option<Range<usize>>,
    /// One line: what was found and what was wanted.
    pub what: String,
}

impl Problem {
    /// Something wrong at `span`.
    pub(super) fn new(span: &Range<usize>, what: impl Into<String>) -> Self {
        Self { span: span.clone(), first: None, what: what.into() }
    }

    /// Something at `span` that stands at `first` already.
    pub(super) fn again(span: &Range<usize>, first: &Range<usize>, what: impl Into<String>) -> Self {
        Self { first: Some(first.clone()), ..Self::new(span, what) }
    }

    fn in_words(self, text: &str) -> (usize, String) {
        let what = match self.first {
            Some(first) => format!("{}; the first is on line {}", self.what, line_of(text, first.start)),
            None => self.what,
        };
        (line_of(text, self.span.start), what)
    }
}

impl ConfigError {
    /// `problems` of `text`, ordered and with line numbers.
    pub(super) fn wrong(text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        problems.dedup();
        let problems = problems.into_iter().map(|problem| problem.in_words(text)).collect();
        Self::Wrong { path: None, problems }
    }

    /// The same, naming the file.
    pub(super) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Wrong { problems, .. } => Self::Wrong { path: Some(file.to_owned()), problems },
            unreadable @ Self::Unreadable { .. } => unreadable,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why } => write!(f, "cannot read {}: {why}", path.display()),
            Self::Wrong { path, problems } => {
                for (n, (line, what)) in problems.iter().enumerate() {
                    let newline = if n == 0 { "" } else { "\n" };
                    match path {
                        Some(path) => write!(f, "{newline}{}:{line}: {what}", path.display())?,
                        None => write!(f, "{newline}line {line}: {what}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { why, .. } => Some(why),
            Self::Wrong { .. } => None,
        }
    }
}

/// The line, from 1, that byte `at` is in.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count()
}
