//! What was counted on the way, to see that a run was worth its time.

use crate::dice::Fault;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub frames: u64,
    pub held: u64,
    pub delivered: u64,
    /// Of them to the second NIC of a guest.
    pub second_nic: u64,
    pub refused: u64,
    pub answers: u64,
    /// Frames that a later one of their flow passed on the way to the guest, after the release.
    pub overtaken: u64,
    /// Flooded frames that reached a guest directly and from us.
    pub twice: u64,
    /// Answers of ours that were frames for another sleeper.
    pub re_entered: u64,
    pub reclassified: u64,
    pub aged: u64,
    pub sleeps: u64,
    pub wakes: u64,
    pub aborted: u64,
    pub stranded: u64,
    pub lost_with_daemon: u64,
    /// How often each thing went wrong.
    pub faults: [u64; Fault::KINDS],
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.frames, other.frames),
            (&mut self.held, other.held),
            (&mut self.delivered, other.delivered),
            (&mut self.second_nic, other.second_nic),
            (&mut self.refused, other.refused),
            (&mut self.answers, other.answers),
            (&mut self.overtaken, other.overtaken),
            (&mut self.twice, other.twice),
            (&mut self.re_entered, other.re_entered),
            (&mut self.reclassified, other.reclassified),
            (&mut self.aged, other.aged),
            (&mut self.sleeps, other.sleeps),
            (&mut self.wakes, other.wakes),
            (&mut self.aborted, other.aborted),
            (&mut self.stranded, other.stranded),
            (&mut self.lost_with_daemon, other.lost_with_daemon),
        ];
        for (sum, more) in pairs.into_iter().chain(self.faults.iter_mut().zip(other.faults)) {
            *sum += more;
        }
    }
}
