//! A frame and what was read of it, once, whomever it concerns.

use surrogate_wire::{Frame, Mac, Malformed, Packet, Received};

use super::magic;

/// See the [module](self).
#[derive(Clone, Copy)]
pub(super) struct View<'v, 'f> {
    pub(super) received: &'v Received<'f>,
    pub(super) frame: &'v Frame<'f>,
    pub(super) packet: Result<&'v Packet<'f>, Malformed>,
    /// Whom it calls, if it is a magic packet: the search goes through the whole payload.
    pub(super) called: Option<Mac>,
}

impl<'v, 'f> View<'v, 'f> {
    /// Of a frame and the `packet` in it.
    pub(super) fn new(
        received: &'v Received<'f>,
        frame: &'v Frame<'f>,
        packet: &'v Result<Packet<'f>, Malformed>,
    ) -> Self {
        let packet = packet.as_ref().map_err(|why| *why);
        let called = packet.ok().and_then(|packet| magic::target(frame, packet));
        Self { received, frame, packet, called }
    }
}
