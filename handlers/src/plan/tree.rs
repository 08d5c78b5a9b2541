//! The text of a plan as a tree of values, the same from TOML and JSON.
//!
//! Both formats are read by their own libraries; a key that stands twice is refused in both. The length of
//! the text bounds the tree, the libraries bound its depth.

use core::fmt;
use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{MAX_PLAN, PlanError};

/// A value as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Flag(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    List(Vec<Tree>),
    Table(BTreeMap<String, Tree>),
}

/// Reads TOML.
pub(super) fn from_toml(text: &str) -> Result<Tree, PlanError> {
    bounded(text)?;
    toml::from_str(text).map_err(|why| {
        let place = why.span().map_or_else(|| "the plan".to_owned(), |span| line(text, span.start));
        PlanError::one(place, why.message().replace('\n', ", "))
    })
}

/// Reads JSON.
pub(super) fn from_json(text: &str) -> Result<Tree, PlanError> {
    bounded(text)?;
    serde_json::from_str(text).map_err(|why| {
        let place = format!("line {}", why.line());
        let what = why.to_string();
        // The library ends its texts with the place, which we name first.
        PlanError::one(place, what.split(" at line ").next().unwrap_or(&what))
    })
}

impl Tree {
    /// It, as it would be found in the text, shortened.
    pub(super) fn shown(&self) -> String {
        const LONGEST: usize = 40;
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) if text.chars().count() > LONGEST => {
                let begin: String = text.chars().take(LONGEST).collect();
                format!("\"{}...\"", begin.escape_debug())
            }
            Self::Text(text) => format!("\"{}\"", text.escape_debug()),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

fn bounded(text: &str) -> Result<(), PlanError> {
    if text.len() <= MAX_PLAN {
        return Ok(());
    }
    let what = format!("wanted a text of at most {MAX_PLAN} bytes, found {}", text.len());
    Err(PlanError::one("the plan", what))
}

fn line(text: &str, at: usize) -> String {
    format!("line {}", 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count())
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Build)
    }
}

struct Build;

impl<'de> Visitor<'de> for Build {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plan")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Tree, E> {
        Ok(Tree::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Integer(number))
    }

    #[expect(clippy::cast_precision_loss, reason = "no key takes so large a whole number")]
    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(i64::try_from(number).map_or(Tree::Number(number as f64), Tree::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Tree, E> {
        Ok(Tree::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = entries.next_element()? {
            list.push(entry);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut table = BTreeMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value()?;
            if table.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key `{}` is there twice", key.escape_debug())));
            }
            table.insert(key, value);
        }
        Ok(Tree::Table(table))
    }
}
