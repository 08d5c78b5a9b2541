//! Reads one TOML table key by key and knows, at the end, which keys nobody asked for.
//!
//! The keys that were asked for are the known keys, so the suggestion for an unknown one needs no
//! second list. Problems are collected, not returned: one run finds everything.

use core::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::value::shown;

/// A value and where it is written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    /// What is written there.
    pub(super) value: T,
    /// Where, in bytes of the text.
    pub(super) span: Range<usize>,
}

/// All tables `[[key]]`.
pub(super) struct Tables<T> {
    /// Those that could be read.
    pub(super) list: Vec<At<T>>,
    /// Whether these are all: nothing else was written there.
    pub(super) whole: bool,
}

/// One table being read.
pub(super) struct Section<'i, 'p> {
    /// As a person would find it: `[defaults]`, `[[guest]] "web1"`.
    pub(super) name: String,
    /// Where it begins.
    pub(super) span: Range<usize>,
    table: DeTable<'i>,
    known: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'i, 'p> Section<'i, 'p> {
    /// The whole document.
    pub(super) fn document(table: DeTable<'i>, problems: &'p mut Vec<Problem>) -> Self {
        Self { name: "the file".to_owned(), span: 0..0, table, known: Vec::new(), problems }
    }

    /// The value of `key`, if it is there and `read` accepts it. `read` says in its error what it
    /// wanted and what it found.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<At<T>> {
        let value = self.remove(key)?;
        let span = value.span();
        match read(value.get_ref()) {
            Ok(value) => Some(At { value, span }),
            Err(why) => {
                self.wrong(&span, format!("`{key}` in {}: {why}", self.name));
                None
            }
        }
    }

    /// As [`take`](Self::take), for a key that must be there.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<At<T>> {
        if !self.has(key) {
            let span = self.span.clone();
            self.wrong(&span, format!("{} has no `{key}`", self.name));
        }
        self.take(key, read)
    }

    /// The entries of the array `key` that `read` accepts; `None` if it is not there.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'i>) -> Result<T, String>,
    ) -> Option<Vec<At<T>>> {
        let value = self.remove(key)?;
        let span = value.span();
        let entries = match value.into_inner() {
            DeValue::Array(entries) => entries,
            other => {
                let wanted = "wanted a list, as [\"...\", \"...\"]";
                self.wrong(&span, format!("`{key}` in {}: {wanted}, found {}", self.name, shown(&other)));
                return None;
            }
        };
        let mut list = Vec::with_capacity(entries.len());
        for entry in entries {
            match read(entry.get_ref()) {
                Ok(value) => list.push(At { value, span: entry.span() }),
                Err(why) => self.wrong(&entry.span(), format!("`{key}` in {}: {why}", self.name)),
            }
        }
        Some(list)
    }

    /// The table `key`, if it is there, read by `read`.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'i, '_>) -> T,
    ) -> Option<At<T>> {
        let value = self.remove(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => {
                let name =
                    if self.is_document() { format!("[{key}]") } else { format!("`{key}` of {}", self.name) };
                Some(self.child(name, span, table, read))
            }
            DeValue::Array(entries) if self.is_document() && entries.iter().any(is_table) => {
                self.wrong(&span, format!("[{key}] stands once, in single brackets; found [[{key}]]"));
                None
            }
            other => {
                let wanted = if self.is_document() { format!("[{key}]") } else { "{ ... }".to_owned() };
                let found = shown(&other);
                self.wrong(
                    &span,
                    format!("`{key}` in {}: wanted a table, as {wanted}, found {found}", self.name),
                );
                None
            }
        }
    }

    /// The tables `[[key]]`, read by `read`; none if the key is not there. One in single brackets is wrong, and
    /// read all the same: what refers to it is not wrong.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Section<'i, '_>) -> T,
    ) -> Tables<T> {
        let mut tables = Tables { list: Vec::new(), whole: true };
        let Some(value) = self.remove(key) else { return tables };
        let span = value.span();
        let header = if self.is_document() { format!("[[{key}]]") } else { format!("[[guest.{key}]]") };
        match value.into_inner() {
            DeValue::Array(entries) => {
                for entry in entries {
                    let span = entry.span();
                    match entry.into_inner() {
                        DeValue::Table(table) => {
                            tables.list.push(self.child(header.clone(), span, table, &read));
                        }
                        other => {
                            tables.whole = false;
                            let found = shown(&other);
                            let what =
                                format!("each {key} is a table of its own, as {header}; found {found}");
                            self.wrong(&span, what);
                        }
                    }
                }
            }
            DeValue::Table(table) => {
                self.wrong(
                    &span,
                    format!("each {key} stands in double brackets, as {header}; found single ones"),
                );
                tables.list.push(self.child(header, span, table, read));
            }
            other => {
                tables.whole = false;
                let found = shown(&other);
                self.wrong(
                    &span,
                    format!("each {key} stands in double brackets, as {header}; found {found}"),
                );
            }
        }
        tables
    }

    /// Whether `key` is written, without reading it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether something is meant to stand at `key`, well written or not: it is no empty list.
    pub(super) fn is_given(&self, key: &str) -> bool {
        match self.table.get(key).map(Spanned::get_ref) {
            Some(DeValue::Array(entries)) => !entries.is_empty(),
            Some(_) => true,
            None => self.table.keys().any(|found| nearest(found.get_ref(), [key].into_iter()).is_some()),
        }
    }

    /// Reports something wrong.
    pub(super) fn wrong(&mut self, span: &Range<usize>, what: String) {
        self.problems.push(Problem::new(span, what));
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self) {
        let Self { name, table, known, problems, .. } = self;
        for key in table.keys() {
            let found: &str = key.get_ref();
            let hint = match nearest(found, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known are {}", known.join(", ")),
            };
            problems.push(Problem::new(&key.span(), format!("unknown key `{found}` in {name}: {hint}")));
        }
    }

    fn child<T>(
        &mut self,
        name: String,
        span: Range<usize>,
        table: DeTable<'i>,
        read: impl FnOnce(&mut Section<'i, '_>) -> T,
    ) -> At<T> {
        let problems = &mut *self.problems;
        let mut section = Section { name, span: span.clone(), table, known: Vec::new(), problems };
        let value = read(&mut section);
        section.finish();
        At { value, span }
    }

    fn remove(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn is_document(&self) -> bool {
        self.span == (0..0)
    }
}

fn is_table(entry: &Spanned<DeValue<'_>>) -> bool {
    matches!(entry.get_ref(), DeValue::Table(_))
}

/// The one of `known` that `found` was probably meant to be: at most a third of it mistyped.
pub(super) fn nearest<'k>(found: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let found = plain(found);
    known
        .map(|name| (distance(&found, &plain(name)), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4 && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Letters to insert, delete, replace or swap with their neighbour to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (row, from) in a.chars().enumerate() {
        let mut here = vec![row + 1];
        for (column, &to) in b.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&above, column) + usize::from(from != to))
                .min(at(&above, column + 1) + 1)
                .min(at(&here, column) + 1);
            let swapped = column > 0 && last == Some(to) && b.get(column - 1) == Some(&from);
            if swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            here.push(cost);
        }
        last = Some(from);
        before = core::mem::replace(&mut above, here);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_is_near_or_absent() {
        let known = ["idle_after", "idle_cpu", "wake", "depth"];
        let near = |found| nearest(found, known.into_iter());
        assert_eq!(near("idle_aftr"), Some("idle_after"));
        assert_eq!(near("idle-after"), Some("idle_after"));
        assert_eq!(near("dpeth"), Some("depth"));
        assert_eq!(near("Wake"), Some("wake"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(""), None);
    }
}
