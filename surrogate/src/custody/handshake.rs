//! Requests of peers that the guest has not answered yet: what their SYNs offered.
//!
//! A connection enters the table only by the guest's own segments, so that no stranger can fill it. What a
//! peer's SYN said is kept here until the guest answers it: a small cache, each request in the one place that its
//! hash gives, the newest kept. One that was overwritten costs a window scale, nothing more.

use core::hash::BuildHasher;

use super::connection::Tuple;
use crate::hash::Seeded;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Requests {
    /// Empty until the first SYN.
    places: Vec<Option<Request>>,
    hasher: Seeded,
}

/// What a SYN of a peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) tuple: Tuple,
    /// Its window scale, if it offered one.
    pub(super) scale: Option<u8>,
}

impl Requests {
    pub(super) const fn new(seed: u64) -> Self {
        Self { places: Vec::new(), hasher: Seeded::new(seed) }
    }

    pub(super) fn note(&mut self, request: Request) {
        if self.places.is_empty() {
            self.places = vec![None; PLACES];
        }
        let place = self.place(&request.tuple);
        if let Some(place) = self.places.get_mut(place) {
            *place = Some(request);
        }
    }

    /// The request of these ends, which the guest answers now.
    pub(super) fn take(&mut self, tuple: &Tuple) -> Option<Request> {
        let place = self.place(tuple);
        self.places.get_mut(place)?.take_if(|request| request.tuple == *tuple)
    }

    fn place(&self, tuple: &Tuple) -> usize {
        self.hasher.hash_one(tuple) as usize & (PLACES - 1)
    }
}

const PLACES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_requests_takes_no_more_memory_and_the_newest_are_known() {
        let mut requests = Requests::new(1);
        let request = |n: u32| {
            let peer = core::net::IpAddr::from(n.to_be_bytes());
            let tuple = Tuple { guest: [192, 0, 2, 11].into(), guest_port: 22, peer, peer_port: 9 };
            Request { tuple, scale: Some(7) }
        };
        for n in 0..100_000 {
            requests.note(request(n));
        }
        assert_eq!(requests.places.len(), PLACES);
        assert_eq!(requests.take(&request(99_999).tuple), Some(request(99_999)));
        assert_eq!(requests.take(&request(99_999).tuple), None, "taken once");
        assert_eq!(requests.take(&request(1).tuple), None);
    }
}
