//! Matches each answer of ours with the real host's answer to the same question, and names what
//! differs as docs/packet-policy.md does.

use surrogate::io::capture::Captured;
use surrogate::responder::udp_echo::would_loop;
use surrogate_wire::Mac;

use crate::said::{About, Asked, Said, What, asked, said};

/// How long a host may take to answer.
const PATIENCE_NS: u64 = 2_000_000_000;

/// What was asked of a host, what we said, what it said.
#[derive(Default)]
pub struct Pairs {
    open: Vec<Question>,
    compared: Vec<Pair>,
    differences: Vec<(&'static str, String)>,
}

/// A question and its answer, by their places in the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub kind: &'static str,
    pub question: usize,
    pub answer: usize,
}

/// A question that the real host has not answered yet.
struct Question {
    frame: usize,
    unix_ns: u64,
    asked: Asked,
    ours: Option<Said>,
}

impl Pairs {
    /// Another host's frame came, and this is what we said to it.
    pub fn host_was_told(&mut self, n: usize, host: Mac, frame: &Captured, ours: &[Vec<u8>]) {
        let ours = ours.iter().find_map(|bytes| said(bytes));
        let Some(asked) = asked(&frame.bytes, host) else { return };
        self.open.push(Question { frame: n, unix_ns: frame.unix_ns, asked, ours });
    }

    /// The real host's own frame came.
    pub fn host_said(&mut self, n: usize, frame: &Captured) {
        let Some(theirs) = said(&frame.bytes) else { return };
        let late = |question: &Question| frame.unix_ns.saturating_sub(question.unix_ns) > PATIENCE_NS;
        let (given_up, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.open).into_iter().partition(late);
        self.open = open;
        for question in given_up {
            self.unanswered(&question);
        }
        let place = self.open.iter().position(|question| question.asked.about == theirs.about);
        // Without a question before it in the capture: an announcement, or the question is not in it.
        let Some(place) = place else { return };
        let question = self.open.remove(place);
        match &question.ours {
            None => {
                let what = format!("frame {n} answers frame {}, and we did not", question.frame);
                self.differences.push((missing(&question.asked, &theirs), what));
            }
            Some(ours) => {
                self.compared.push(Pair { kind: kind(&theirs), question: question.frame, answer: n });
                for name in differ(&question.asked, ours, &theirs) {
                    let what = format!("frame {n}: theirs {theirs:?}, ours {ours:?}");
                    self.differences.push((name, what));
                }
            }
        }
    }

    /// What was compared, and all differences by name.
    pub fn end(mut self) -> (Vec<Pair>, Vec<(&'static str, String)>) {
        for question in std::mem::take(&mut self.open) {
            self.unanswered(&question);
        }
        (self.compared, self.differences)
    }

    fn unanswered(&mut self, question: &Question) {
        if question.ours.is_some() {
            let what = format!("frame {} got no answer from the host", question.frame);
            self.differences.push(("answers-all", what));
        }
    }
}

/// What differs, by the names of docs/packet-policy.md; a name that is not there fails the test.
fn differ(question: &Asked, ours: &Said, theirs: &Said) -> Vec<&'static str> {
    let mut names = Vec::new();
    if ours.envelope.src != theirs.envelope.src || !same_vlans(&ours.envelope.tags, &theirs.envelope.tags) {
        names.push("unlisted: addressing");
    } else if ours.envelope.tags != theirs.envelope.tags {
        names.push("vlan-priority");
    }
    if ours.envelope.dst != theirs.envelope.dst {
        let broadcast = matches!(theirs.what, What::Arp { .. }) && !theirs.envelope.dst.is_unicast();
        names.push(if broadcast { "arp-broadcast-reply" } else { "unlisted: destination" });
    }
    match (&ours.what, &theirs.what) {
        (What::Arp { sha, tha }, What::Arp { sha: their_sha, tha: their_tha }) => {
            if sha != their_sha {
                names.push("unlisted: claimed MAC");
            }
            if tha != their_tha {
                names.push("unlisted: target MAC");
            }
        }
        (
            What::Advertisement { from, router, solicited, overrides, link_layer },
            What::Advertisement {
                from: their_from,
                router: their_router,
                solicited: their_solicited,
                overrides: their_overrides,
                link_layer: their_link_layer,
            },
        ) => {
            if from != their_from {
                names.push("na-source");
            }
            if (router, solicited) != (their_router, their_solicited) {
                names.push("unlisted: advertisement flags");
            }
            let left_out = their_link_layer.is_none() && !their_overrides && question.unicast;
            if left_out && link_layer.is_some() && *overrides {
                names.push("na-option");
            } else if (overrides, link_layer) != (their_overrides, their_link_layer) {
                names.push("unlisted: link-layer option or override");
            }
        }
        (What::Echo { data }, What::Echo { data: their_data }) => {
            if data != their_data {
                names.push("unlisted: echo data");
            }
        }
        (What::UdpEcho { data }, What::UdpEcho { data: their_data }) => {
            if data != their_data {
                names.push("unlisted: echo data");
            }
        }
        (
            What::Reset { seq, window, payload },
            What::Reset { seq: their_seq, window: their_window, payload: their_payload },
        ) => {
            if (seq, payload) != (their_seq, their_payload) {
                names.push("unlisted: reset");
            }
            if window != their_window {
                names.push("rst-window");
            }
        }
        (What::PortUnreachable { quote }, What::PortUnreachable { quote: theirs }) => {
            if !quote.starts_with(theirs) && !theirs.starts_with(quote) {
                names.push("unlisted: quote");
            } else if quote != theirs {
                names.push("unreachable-quote");
            }
        }
        _ => names.push("unlisted: kind"),
    }
    names
}

/// What an answer is called in a census; [`KINDS`] has all.
fn kind(answer: &Said) -> &'static str {
    match (&answer.what, &answer.about) {
        (What::Arp { .. }, _) => "ARP",
        (What::Advertisement { .. }, _) => "ND",
        (What::Echo { .. }, About::Echo { host, .. }) if host.is_ipv4() => "ICMPv4 echo",
        (What::Echo { .. }, _) => "ICMPv6 echo",
        (What::UdpEcho { .. }, _) => "UDP echo",
        (What::Reset { .. }, _) => "TCP reset",
        (What::PortUnreachable { .. }, _) => "port unreachable",
    }
}

/// All kinds of answers.
pub const KINDS: [&str; 7] =
    ["ARP", "ND", "ICMPv4 echo", "ICMPv6 echo", "UDP echo", "TCP reset", "port unreachable"];

/// Whether tags are the same but for their priorities.
fn same_vlans(ours: &[u8], theirs: &[u8]) -> bool {
    let vid = |tag: &[u8]| (tag[0], tag[1], tag[2] & 0x0f, tag[3]);
    ours.chunks_exact(4).map(vid).eq(theirs.chunks_exact(4).map(vid))
}

/// The name for an answer that the host gave and we did not.
fn missing(question: &Asked, theirs: &Said) -> &'static str {
    match (&question.about, &theirs.what) {
        _ if question.forged => "arp-forged",
        (About::Echo { host, .. }, _) if host.is_multicast() || !question.unicast => "echo-group",
        (About::Datagram { peer: (_, port), .. }, What::UdpEcho { .. }) if would_loop(*port) => "echo-loop",
        (_, What::PortUnreachable { .. }) => "unreachable-limit",
        _ => "unlisted: no answer of ours",
    }
}
