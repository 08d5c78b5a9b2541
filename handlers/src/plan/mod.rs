//! A handling plan: what a guest wants done with a response that it sleeps through.
//!
//! Ordered handlers, each a condition and actions; the first that matches an event acts, then none of the
//! others. Behind the plan's own come [`builtin`] ones, and behind these the default: wake and forward. A
//! plan is read from TOML or JSON into one and the same value, with everything that is wrong with it named
//! at once; it is as long as its limits allow and no longer. [`schema`] is its JSON Schema.

pub mod builtin;
mod error;
mod handler;
mod read;
pub mod schema;
mod section;
mod then;
mod tree;
mod value;
mod when;

use core::time::Duration;
use std::sync::Arc;

pub use error::{MAX_PROBLEMS, PlanError, Problem};

use crate::condition::When;
use crate::step::Step;

/// The longest text of a plan, in bytes.
pub const MAX_PLAN: usize = 64 * 1024;
/// Handlers in a plan.
pub const MAX_HANDLERS: usize = 64;
/// Conditions in a plan, all handlers together: each key of `when`, each header, each JSON comparison.
pub const MAX_CONDITIONS: usize = 128;
/// Actions in a handler.
pub const MAX_STEPS: usize = 16;
/// Headers that a condition or a response names.
pub const MAX_HEADERS: usize = 16;
/// JSON comparisons in a condition.
pub const MAX_JSON_TESTS: usize = 8;
/// Events or status codes in a condition.
pub const MAX_CHOICES: usize = 16;
/// A name of a handler or group, in bytes.
pub const MAX_NAME: usize = 64;
/// A text to compare with or to tell, in bytes.
pub const MAX_TEXT: usize = 256;
/// The body of a response, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024;
/// How far into a body a text is searched, in bytes.
pub const MAX_WITHIN: u64 = 64 * 1024;
/// How far into a body a text is searched unless the plan says otherwise, in bytes.
pub const DEFAULT_WITHIN: u64 = 4096;
/// The longest time in a plan.
pub const MAX_WAIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a plan waits unless it says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(3600);
/// Repetitions of a request.
pub const MAX_RETRIES: u64 = 1000;
/// Redirections that are followed.
pub const MAX_REDIRECTS: u64 = 20;
/// The most bytes kept for a guest.
pub const MAX_BYTES: u64 = 1 << 30;
/// How many bytes are kept for a guest unless the plan says otherwise.
pub const DEFAULT_BYTES: u64 = 16 << 20;
/// The highest number of a group that can be waited for.
pub const MAX_MEMBERS: u64 = 64;

/// A handling plan, checked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// What a message is on this connection.
    pub framing: Framing,
    /// How long to wait in all.
    pub max_wait: Duration,
    /// How often the request may be sent again, all handlers together.
    pub max_retries: u32,
    /// How many redirections may be followed.
    pub max_redirects: u32,
    /// How much is kept before the guest must wake.
    pub max_bytes: u64,
    /// The group that the stub is in.
    pub group: Option<GroupRule>,
    /// The plan's own handlers.
    pub handlers: Vec<Handler>,
}

/// What a message is on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// HTTP/1.1 responses.
    Http,
    /// Lines.
    Line,
    /// A length, then as many bytes.
    LengthPrefix,
    /// Bytes, without messages.
    Raw,
    /// Datagrams.
    Datagram,
}

crate::word::words!(Framing {
    Http = "http",
    Line = "line",
    LengthPrefix = "length-prefix",
    Raw = "raw",
    Datagram = "datagram",
});

/// One rule: a condition and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Handler {
    /// What the plan calls it.
    pub name: Option<Arc<str>>,
    /// When it acts.
    pub when: When,
    /// What it does, in this order; not empty.
    pub then: Vec<Step>,
}

/// A group of stubs of one guest, which wakes once for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRule {
    /// Stubs that name the same group are in it.
    pub name: Arc<str>,
    /// When the guest wakes.
    pub wake: GroupWake,
}

/// How many of a group must want to wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupWake {
    /// One.
    Any,
    /// Every one.
    All,
    /// This many, or all if there are fewer.
    Count(u32),
}

impl Plan {
    /// The plan that asks for nothing: only what is built in.
    #[must_use]
    pub fn default_for(framing: Framing) -> Self {
        Self {
            framing,
            max_wait: DEFAULT_WAIT,
            max_retries: 0,
            max_redirects: 0,
            max_bytes: DEFAULT_BYTES,
            group: None,
            handlers: Vec::new(),
        }
    }

    /// Reads a plan from TOML.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, PlanError> {
        read::plan(tree::from_toml(text)?)
    }

    /// Reads a plan from JSON.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        read::plan(tree::from_json(text)?)
    }

    /// How a person finds handler `index` in the plan: by its number from 1, and its name.
    #[must_use]
    pub fn place_of(&self, index: usize) -> String {
        let name = self.handlers.get(index).and_then(|handler| handler.name.as_deref());
        handler::place(index, name)
    }
}
