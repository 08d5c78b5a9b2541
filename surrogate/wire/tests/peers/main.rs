//! Our reading of frames beside that of two peers, smoltcp's `wire` and pnet's packet views.
//!
//! Frames are built by smoltcp from meaningful values, then changed as an attacker or a bad cable would,
//! half of them with their checksums mended, so that the change gets past the first gate. Where the
//! peer has an opinion, ours must be the same, field by field; where we refuse what it takes, the reason
//! must be one of the rules that it does not check. At last, plain noise must not panic.

#![expect(clippy::indexing_slicing, reason = "a test may panic on its own bytes")]

mod build;
mod emission;
mod groups;
mod noise;
mod pnet_view;
mod reading;
mod smoltcp_view;

use build::{Change, changed, changes, sound};
use proptest::prelude::*;
use reading::{Opinion, Reading, Upper, ours};
use surrogate_wire::Malformed;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_sound_frame_is_read_as_it_was_meant(sound in sound()) {
        let frame = sound.build();
        prop_assert_eq!(ours(&frame), Ok(sound.meaning()));
    }

    #[test]
    fn smoltcp_reads_the_same_in_changed_frames(sound in sound(), changes in changes(), mend: bool) {
        let frame = changed(&sound.build(), &changes, mend);
        compare(&frame, smoltcp_view::opinion(&frame))?;
    }

    #[test]
    fn pnet_reads_the_same_in_changed_frames(sound in sound(), changes in changes(), mend: bool) {
        let frame = changed(&sound.build(), &changes, mend);
        compare(&frame, pnet_view::opinion(&frame))?;
    }

    #[test]
    fn what_we_write_smoltcp_would_have_written(sound in sound()) {
        if let Some(ours) = emission::ours(&sound) {
            let mut theirs = sound.build();
            theirs.truncate(sound.len());
            theirs.resize(theirs.len().max(surrogate_wire::emit::MIN_FRAME), 0);
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_flipped_bit_is_never_read_as_something_else(sound in sound(), at: prop::sample::Index, bit in 0u8..8) {
        // Behind the Ethernet header, which only the FCS protects.
        let whole = sound.build();
        let at = 14 + at.index(whole.len() - 14);
        let frame = changed(&whole, &[Change::Flip { at, bit }], false);
        match ours(&frame) {
            Err(_) => {}
            Ok(reading) if sound.protects(at) => {
                return Err(TestCaseError::fail(format!("byte {at}, bit {bit}: {reading:?}")));
            }
            Ok(_) => {}
        }
    }
}

/// Says where the two readings differ.
fn compare(frame: &[u8], theirs: Opinion) -> Result<(), TestCaseError> {
    match (ours(frame), theirs) {
        (_, Opinion::None) => {}
        (Ok(ours), Opinion::Reads(theirs)) => prop_assert_eq!(ours, theirs),
        (Err(why), Opinion::Reads(theirs)) => prop_assert!(
            matches!(
                why,
                Malformed::Header | Malformed::Source | Malformed::SourceRoute | Malformed::UnknownOption
            ) || (why == Malformed::Length && is_unread(&theirs)),
            "refused for {:?}, the peer reads {:?}",
            why,
            theirs
        ),
        (Err(_), Opinion::Refuses) => {}
        (Ok(ours), Opinion::Refuses) => {
            return Err(TestCaseError::fail(format!("the peer refuses what we read as {ours:?}")));
        }
    }
    Ok(())
}

/// A fragment, whose lengths only we judge.
fn is_unread(reading: &Reading) -> bool {
    matches!(reading, Reading::Ip { upper: Upper::Unread, .. })
}
