//! Whether a mode can keep a whole plan: every reason why not, each with its place in the plan.

use core::fmt;

use handlers::Action;
use handlers::plan::{Framing, Plan};

use crate::mode::{CannotKeep, Mode};

/// Why a mode refuses a plan. Displayed as one line per reason, `PLACE: why`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRefused {
    /// The reasons; at least one.
    pub reasons: Vec<Reason>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// As a person finds it: `handler 2 "paid", then 1`.
    pub place: String,
    /// What the mode cannot do there.
    pub why: Why,
}

/// What a mode cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An action.
    Action(CannotKeep),
    /// A framing: it speaks HTTP only.
    Framing {
        /// The mode.
        mode: Mode,
        /// What the plan says.
        framing: Framing,
    },
    /// A condition on the status: only responses have one.
    Status {
        /// The mode.
        mode: Mode,
    },
}

impl Mode {
    /// Whether this mode can do everything that `plan` asks for, built-in handlers included.
    ///
    /// # Errors
    /// Names each place and says why not.
    pub fn keeps_plan(self, plan: &Plan) -> Result<(), PlanRefused> {
        let mut reasons = Vec::new();
        if self == Self::Delegate && plan.framing != Framing::Http {
            let why = Why::Framing { mode: self, framing: plan.framing };
            reasons.push(Reason { place: "framing".to_owned(), why });
        }
        let budgets = [
            (plan.max_retries, Action::Retry, "max_retries"),
            (plan.max_redirects, Action::Follow, "max_redirects"),
        ];
        for (budget, action, key) in budgets {
            if let (1.., Err(cannot)) = (budget, self.keeps(action)) {
                reasons.push(Reason { place: key.to_owned(), why: Why::Action(cannot) });
            }
        }
        let takes_requests = matches!(self, Self::Listen | Self::Serve);
        for (index, handler) in plan.handlers.iter().enumerate() {
            if takes_requests && !handler.when.status.is_empty() {
                let place = format!("{}, when", plan.place_of(index));
                reasons.push(Reason { place, why: Why::Status { mode: self } });
            }
            for (step, number) in handler.then.iter().zip(1_usize..) {
                if let Err(cannot) = self.keeps(step.action()) {
                    let place = format!("{}, then {number}", plan.place_of(index));
                    reasons.push(Reason { place, why: Why::Action(cannot) });
                }
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(PlanRefused { reasons }) }
    }
}

impl fmt::Display for PlanRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, reason) in self.reasons.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{}: {}", reason.place, reason.why)?;
        }
        Ok(())
    }
}

impl std::error::Error for PlanRefused {}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Action(cannot) => cannot.fmt(f),
            Self::Framing { mode, framing } => {
                write!(f, "mode {mode} cannot keep framing {framing}: the request it sends is HTTP")
            }
            Self::Status { mode } => {
                write!(f, "mode {mode} cannot compare a status: the peer sends requests, which have none")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan::from_toml(text).unwrap_or_else(|why| panic!("{text}\n{why}"))
    }

    fn refusal(mode: Mode, text: &str) -> String {
        mode.keeps_plan(&plan(text)).expect_err(text).to_string()
    }

    #[test]
    fn a_refused_plan_names_each_place_and_reason() {
        let text = r#"
            max_retries = 1
            max_redirects = 1
            [[handler]]
            then = "wake"
            [[handler]]
            name = "busy"
            when = { status = 503 }
            then = ["discard", "retry"]
            [[handler]]
            then = [{ log = "moved" }, "follow"]
            [[handler]]
            then = "close""#;
        assert_eq!(
            refusal(Mode::Observe, text).lines().collect::<Vec<_>>(),
            [
                "max_retries: mode observe cannot retry: the request is the guest's, and we never saw it whole",
                "max_redirects: mode observe cannot follow: the request is the guest's, and only it may send another",
                "handler 2 \"busy\", then 1: mode observe cannot discard: the bytes are part of the guest's own \
                 connection, which cannot miss any",
                "handler 2 \"busy\", then 2: mode observe cannot retry: the request is the guest's, and we never \
                 saw it whole",
                "handler 3, then 2: mode observe cannot follow: the request is the guest's, and only it may send \
                 another",
                "handler 4, then 1: mode observe cannot close: the connection is the guest's own, and only it may \
                 end it",
            ]
        );
        assert_eq!(Mode::Delegate.keeps_plan(&plan(text)), Ok(()));
    }

    #[test]
    fn delegate_answers_nobody_and_speaks_http() {
        assert_eq!(
            refusal(Mode::Delegate, "[[handler]]\nthen = { respond = {} }"),
            "handler 1, then 1: mode delegate cannot respond: the peer answers here, it asks nothing"
        );
        assert_eq!(
            refusal(Mode::Delegate, "framing = \"line\""),
            "framing: mode delegate cannot keep framing line: the request it sends is HTTP"
        );
    }

    #[test]
    fn listen_and_serve_repeat_and_follow_nothing() {
        for mode in [Mode::Listen, Mode::Serve] {
            let text = "max_retries = 1\nmax_redirects = 1";
            assert_eq!(
                refusal(mode, text),
                format!(
                    "max_retries: mode {mode} cannot retry: the peer sends the request, there is none of ours\n\
                     max_redirects: mode {mode} cannot follow: the peer sends requests, it redirects nobody"
                )
            );
        }
    }

    #[test]
    fn who_takes_requests_compares_no_status() {
        let text = "[[handler]]\nname = \"ok\"\nwhen = { status = \"2xx\" }\nthen = \"wake\"";
        for mode in [Mode::Listen, Mode::Serve] {
            assert_eq!(
                refusal(mode, text),
                format!(
                    "handler 1 \"ok\", when: mode {mode} cannot compare a status: the peer sends requests, which \
                     have none"
                )
            );
        }
        assert_eq!(Mode::Observe.keeps_plan(&plan(text)), Ok(()));
        assert_eq!(Mode::Delegate.keeps_plan(&plan(text)), Ok(()));
    }

    #[test]
    fn every_mode_keeps_a_plan_that_asks_for_nothing() {
        for mode in Mode::ALL {
            assert_eq!(mode.keeps_plan(&plan("")), Ok(()));
        }
    }

    #[test]
    fn the_examples_are_for_the_modes_they_name() {
        let payment = plan(include_str!("../../docs/examples/credit-card.toml"));
        assert_eq!(Mode::Delegate.keeps_plan(&payment), Ok(()));
        assert!(Mode::Observe.keeps_plan(&payment).is_err());
        let download = plan(include_str!("../../docs/examples/long-download.toml"));
        assert_eq!(Mode::Observe.keeps_plan(&download), Ok(()));
        assert_eq!(Mode::Delegate.keeps_plan(&download), Ok(()));
    }
}
