//! What became of the deliveries of one pass, per NIC: so many reached the port, the rest did not.

use crate::engine::{Done, Refusal};
use crate::guest::identity::{Epoch, NicId};

/// Deliveries since the last [`take`](Self::take).
#[derive(Debug, Default)]
pub(super) struct Progress {
    of: Vec<OfNic>,
}

#[derive(Clone, Copy, Debug)]
struct OfNic {
    nic: NicId,
    epoch: Epoch,
    delivered: u32,
    refused: Option<Refusal>,
}

impl Progress {
    /// Delivers the next frame of `nic`, unless one before it was refused: order is kept.
    pub(super) fn try_next(
        &mut self,
        nic: NicId,
        epoch: Epoch,
        deliver: impl FnOnce() -> Result<(), Refusal>,
    ) {
        let found = self.of.iter().rposition(|of| of.nic == nic && of.epoch == epoch);
        let at = found.unwrap_or_else(|| {
            self.of.push(OfNic { nic, epoch, delivered: 0, refused: None });
            self.of.len() - 1
        });
        let Some(of) = self.of.get_mut(at) else { return };
        if of.refused.is_none() {
            match deliver() {
                Ok(()) => of.delivered += 1,
                Err(why) => of.refused = Some(why),
            }
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// What to tell the engine: first how many arrived, then why the rest did not.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Done> {
        self.of.drain(..).flat_map(|of| {
            let OfNic { nic, epoch, delivered: count, refused } = of;
            let delivered = (count > 0).then_some(Done::Delivered { nic, epoch, count });
            let refused = refused.map(|why| Done::Refused { nic, epoch, why });
            delivered.into_iter().chain(refused)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: NicId = NicId(1);
    const OTHER: NicId = NicId(2);
    const EPOCH: Epoch = Epoch(3);

    #[test]
    fn nothing_behind_a_refused_frame_is_tried_and_other_nics_go_on() {
        let mut progress = Progress::default();
        progress.try_next(NIC, EPOCH, || Ok(()));
        progress.try_next(NIC, EPOCH, || Err(Refusal::Full));
        progress.try_next(NIC, EPOCH, || panic!("it would overtake the refused one"));
        progress.try_next(OTHER, EPOCH, || Ok(()));
        let done: Vec<_> = progress.take().collect();
        assert_eq!(
            done,
            [
                Done::Delivered { nic: NIC, epoch: EPOCH, count: 1 },
                Done::Refused { nic: NIC, epoch: EPOCH, why: Refusal::Full },
                Done::Delivered { nic: OTHER, epoch: EPOCH, count: 1 },
            ]
        );
        assert!(progress.is_empty());
    }

    #[test]
    fn a_refusal_of_the_first_frame_reports_no_delivery() {
        let mut progress = Progress::default();
        progress.try_next(NIC, EPOCH, || Err(Refusal::Gone));
        let done: Vec<_> = progress.take().collect();
        assert_eq!(done, [Done::Refused { nic: NIC, epoch: EPOCH, why: Refusal::Gone }]);
    }
}
