//! Conditions: what must be so for a handler to act. All of a handler's conditions must hold.
//!
//! A condition sees a moment: an event and what is known then. What a peer sends is only compared, within
//! bounds, and never copied. What the search for a text has seen it need not see again
//! ([`Search`]), so a body that comes byte by byte costs no more than one that comes at once.

mod holds;

use core::fmt;

pub use holds::{Search, Times};

use crate::pointer::{Pointer, Scalar};
use crate::{Event, StatusClass};

/// The longest body whose JSON is looked at, in bytes.
pub const MAX_JSON_BODY: usize = 64 * 1024;

/// What is known of the message at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The status code, once the head is complete. A request has none.
    pub status: Option<u16>,
    /// The fields of the head, once it is complete.
    pub fields: Option<&'a dyn Fields>,
    /// The beginning of the body as far as it is stored, without transfer coding.
    pub body: &'a [u8],
    /// Bytes of this message's body so far, stored or not.
    pub bytes: u64,
    /// Bytes kept for the guest in all.
    pub stored: u64,
    /// The length of the whole message, once it is known.
    pub length: Option<u64>,
}

/// The fields of a message's head.
pub trait Fields: fmt::Debug {
    /// Whether `matches` says yes to any field, given name and value.
    fn any(&self, matches: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool;
}

impl Fields for [(&str, &str)] {
    fn any(&self, matches: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        self.iter().any(|(name, value)| matches(name.as_bytes(), value.as_bytes()))
    }
}

impl<const N: usize> Fields for [(&str, &str); N] {
    fn any(&self, matches: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        self.as_slice().any(matches)
    }
}

impl Known<'_> {
    /// Whether the head is complete and `matches` says yes to any of its fields.
    pub(crate) fn any_field(&self, matches: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> bool {
        self.fields.is_some_and(|fields| fields.any(matches))
    }

    /// Nothing is known yet.
    pub const NOTHING: Known<'static> =
        Known { status: None, fields: None, body: &[], bytes: 0, stored: 0, length: None };
}

/// The condition of a handler; an empty one always holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    /// One of these happened; empty: anything.
    pub events: Vec<Event>,
    /// The status is one of these; empty: any or none.
    pub status: Vec<Status>,
    /// Each of these holds.
    pub headers: Vec<HeaderTest>,
    /// The body begins with this.
    pub body_prefix: Option<Vec<u8>>,
    /// This stands in the beginning of the body.
    pub contains: Option<Contains>,
    /// Each of these holds of the complete body.
    pub json: Vec<JsonTest>,
    /// Bytes of the body so far.
    pub bytes: Option<Range>,
    /// Bytes of the whole message.
    pub length: Option<Range>,
    /// Milliseconds since the waiting began.
    pub elapsed: Option<Range>,
    /// Milliseconds since the peer last sent anything.
    pub silence: Option<Range>,
}

/// A status code or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Exactly this.
    Code(u16),
    /// Any of this class.
    Class(StatusClass),
}

/// A condition on a field of the head: some field of this name passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderTest {
    /// The field's name, compared without regard to case.
    pub name: String,
    /// What its value must be.
    pub value: ValueTest,
}

/// What a field's value must be, compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueTest {
    /// It is there (`true`) or not.
    Present(bool),
    /// It is this.
    Equals(String),
    /// This stands in it.
    Contains(String),
    /// It begins with this.
    Prefix(String),
}

/// A text that stands in the first bytes of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contains {
    /// The text; not empty.
    pub text: Vec<u8>,
    /// In how many bytes.
    pub within: usize,
}

/// A condition on a value in a JSON body.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonTest {
    /// Which value.
    pub pointer: Pointer,
    /// What it must be.
    pub value: JsonValueTest,
}

/// What a value of a JSON body must be.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonValueTest {
    /// The same.
    Equals(Scalar),
    /// There, and something else.
    Not(Scalar),
    /// A smaller number.
    Less(f64),
    /// A larger number.
    Greater(f64),
    /// There (`true`) or not. A body that is no JSON has neither.
    Exists(bool),
}

/// From `at_least` up to but without `below`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The smallest that is in it.
    pub at_least: u64,
    /// The smallest above that is not.
    pub below: Option<u64>,
}
