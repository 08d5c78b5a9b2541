//! The four modes of a listener stub: who owns the connection, and so what a plan may ask for.

use core::fmt;
use core::str::FromStr;

use handlers::Action;

/// How a stub stands between its guest and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The guest owns the connection; we follow it and decide when to wake. Every byte is the guest's
    /// in the end.
    Observe,
    /// The guest handed its request over; we send it and own everything that follows.
    Delegate,
    /// The answer comes on a connection of its own (callback, webhook), and we take it.
    Listen,
    /// We answer requests in the sleeper's place (health checks, stored responses).
    Serve,
}

/// Why a plan cannot be kept in a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CannotKeep {
    /// The mode.
    pub mode: Mode,
    /// The action that it cannot do.
    pub action: Action,
    /// Why not, one clause.
    pub because: &'static str,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Observe, Self::Delegate, Self::Listen, Self::Serve];

    /// Its word in a plan.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Delegate => "delegate",
            Self::Listen => "listen",
            Self::Serve => "serve",
        }
    }

    /// Whether the connection is the guest's own and goes on with it after it woke.
    #[must_use]
    pub const fn guest_owns_connection(self) -> bool {
        matches!(self, Self::Observe)
    }

    /// Whether a plan for this mode may use `action`.
    ///
    /// # Errors
    /// Says why not.
    pub const fn keeps(self, action: Action) -> Result<(), CannotKeep> {
        let because = match (self, action) {
            (Self::Observe, Action::Discard) => {
                "the bytes are part of the guest's own connection, which cannot miss any"
            }
            (Self::Observe, Action::Retry) => "the request is the guest's, and we never saw it whole",
            (Self::Listen | Self::Serve, Action::Retry) => {
                "the peer sends the request, there is none of ours"
            }
            (Self::Observe | Self::Delegate, Action::Respond) => "the peer answers here, it asks nothing",
            _ => return Ok(()),
        };
        Err(CannotKeep { mode: self, action, because })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Mode {
    type Err = handlers::UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|mode| mode.word() == text);
        found.ok_or_else(|| handlers::UnknownWord {
            found: text.to_owned(),
            known: &["observe", "delegate", "listen", "serve"],
        })
    }
}

impl fmt::Display for CannotKeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mode {} cannot {}: {}", self.mode, self.action, self.because)
    }
}

impl std::error::Error for CannotKeep {}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(mode: Mode) -> Vec<&'static str> {
        Action::ALL.iter().filter(|action| mode.keeps(**action).is_ok()).map(|action| action.word()).collect()
    }

    #[test]
    fn each_mode_keeps_what_its_place_allows() {
        assert_eq!(kept(Mode::Observe), ["ignore", "buffer", "wake", "fail", "alert", "log"]);
        assert_eq!(
            kept(Mode::Delegate),
            ["ignore", "discard", "buffer", "wake", "retry", "fail", "alert", "log"]
        );
        for mode in [Mode::Listen, Mode::Serve] {
            assert_eq!(
                kept(mode),
                ["ignore", "discard", "buffer", "wake", "respond", "fail", "alert", "log"]
            );
        }
    }

    #[test]
    fn a_refusal_names_mode_action_and_reason() {
        let refusal = Mode::Observe.keeps(Action::Discard).unwrap_err().to_string();
        assert_eq!(
            refusal,
            "mode observe cannot discard: the bytes are part of the guest's own connection, which cannot miss any"
        );
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("spy".parse::<Mode>().unwrap_err().to_string().contains("observe"));
        assert!(Mode::Observe.guest_owns_connection() && !Mode::Serve.guest_owns_connection());
    }
}
