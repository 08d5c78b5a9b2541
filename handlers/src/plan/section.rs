//! Reads one table key by key and knows, at the end, which keys nobody asked for.
//!
//! The keys that were asked for are the known keys, so what is said of an unknown one needs no second list.
//! Problems are collected, not returned: one run finds everything.

use std::collections::BTreeMap;

use super::tree::Tree;
use super::{MAX_PROBLEMS, PlanError, Problem};

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// Something is wrong at `place`.
    pub(super) fn add(&mut self, place: impl Into<String>, what: impl Into<String>) {
        if self.0.len() < MAX_PROBLEMS {
            self.0.push(Problem { place: place.into(), what: what.into() });
        }
    }

    /// `value`, if nothing was wrong.
    pub(super) fn or<T>(self, value: T) -> Result<T, PlanError> {
        if self.0.is_empty() { Ok(value) } else { Err(PlanError { problems: self.0 }) }
    }
}

/// One table being read.
pub(super) struct Section<'p> {
    /// As a person would find it.
    pub(super) place: String,
    table: BTreeMap<String, Tree>,
    known: Vec<&'static str>,
    problems: &'p mut Problems,
}

impl<'p> Section<'p> {
    /// Reads `tree`, which has to be a table, with `read`.
    pub(super) fn read<T>(
        place: String,
        tree: Tree,
        problems: &'p mut Problems,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let Tree::Table(table) = tree else {
            problems.add(place, format!("wanted a table, found {}", tree.shown()));
            return None;
        };
        let mut section = Self { place, table, known: Vec::new(), problems };
        let value = read(&mut section);
        section.finish();
        Some(value)
    }

    /// The value of `key`, if it is there and `read` accepts it. `read` says in its error what it wanted and found.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Tree) -> Result<T, String>,
    ) -> Option<T> {
        let tree = self.remove(key)?;
        match read(&tree) {
            Ok(value) => Some(value),
            Err(why) => {
                self.wrong_at(key, why);
                None
            }
        }
    }

    /// The entries of `key` that `read` accepts: a list of at most `most`, or a single one. Each is given
    /// with its place.
    pub(super) fn one_or_more<T>(
        &mut self,
        key: &'static str,
        most: usize,
        read: impl Fn(&Tree) -> Result<T, String>,
    ) -> Vec<T> {
        let entries = match self.remove(key) {
            None => return Vec::new(),
            Some(Tree::List(entries)) => entries,
            Some(single) => vec![single],
        };
        if entries.is_empty() || entries.len() > most {
            self.wrong_at(key, format!("wanted 1 to {most} entries, found {}", entries.len()));
        }
        let mut list = Vec::new();
        for entry in entries.iter().take(most) {
            match read(entry) {
                Ok(value) => list.push(value),
                Err(why) => self.wrong_at(key, why),
            }
        }
        list
    }

    /// The table `key`, if it is there, read by `read`.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let tree = self.remove(key)?;
        self.child(key, tree, read)
    }

    /// `tree` as a table at `place` inside this one.
    pub(super) fn child<T>(
        &mut self,
        place: &str,
        tree: Tree,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let place = self.place_of(place);
        Section::read(place, tree, self.problems, read)
    }

    /// What stands at `key`, now known.
    pub(super) fn remove(&mut self, key: &'static str) -> Option<Tree> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// How many of `keys` are written, without reading them.
    pub(super) fn count(&self, keys: &[&str]) -> usize {
        keys.iter().filter(|key| self.table.contains_key(**key)).count()
    }

    /// How many keys are written and not read yet.
    pub(super) fn unread(&self) -> usize {
        self.table.len()
    }

    /// As [`take`](Self::take), for a key that must be there.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Tree) -> Result<T, String>,
    ) -> Option<T> {
        if self.count(&[key]) == 0 {
            self.wrong(format!("wanted a `{key}`"));
        }
        self.take(key, read)
    }

    /// Everything that is left, for tables whose keys are free.
    pub(super) fn rest(&mut self) -> BTreeMap<String, Tree> {
        core::mem::take(&mut self.table)
    }

    /// Something is wrong with the table.
    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.problems.add(self.place.clone(), what);
    }

    /// Something is wrong inside the table.
    pub(super) fn wrong_at(&mut self, inside: &str, what: impl Into<String>) {
        let place = self.place_of(inside);
        self.problems.add(place, what);
    }

    fn place_of(&self, inside: &str) -> String {
        if self.place == DOCUMENT { inside.to_owned() } else { format!("{}, {inside}", self.place) }
    }

    fn finish(self) {
        let known = self.known.join(", ");
        for key in self.table.keys() {
            let shown = Tree::Text(key.clone()).shown();
            self.problems.add(self.place.clone(), format!("unknown key {shown}: known are {known}"));
        }
    }
}

/// The place of the whole text.
pub(super) const DOCUMENT: &str = "the plan";
