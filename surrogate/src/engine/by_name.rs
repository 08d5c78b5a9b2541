//! Counters by kind, for the outside: a kind's name and its number, zeros left out. Positions in an
//! array would change their meaning with every new kind.

use core::fmt;
use core::marker::PhantomData;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserializer, Serializer};

use super::verdict::{Answered, DropReason};

/// What is counted by kind.
pub(super) trait Kind: Copy + 'static {
    /// All kinds, in the order of the array.
    const KINDS: &'static [Self];
    /// Its name.
    fn name(self) -> &'static str;
}

impl Kind for Answered {
    const KINDS: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

impl Kind for DropReason {
    const KINDS: &'static [Self] = &Self::ALL;

    fn name(self) -> &'static str {
        self.name()
    }
}

/// `counts` in the order of `K`, as a map.
fn serialize<K: Kind, S: Serializer>(counts: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (kind, count) in K::KINDS.iter().zip(counts).filter(|(_, count)| **count > 0) {
        map.serialize_entry(kind.name(), count)?;
    }
    map.end()
}

/// The map as counts in the order of `K`. A name that is unknown here is of another version: left out.
fn deserialize<'de, K: Kind, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u64; N], D::Error> {
    struct Counts<K, const N: usize>(PhantomData<K>);

    impl<'de, K: Kind, const N: usize> Visitor<'de> for Counts<K, N> {
        type Value = [u64; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of names to numbers")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut counts = [0; N];
            while let Some((name, count)) = map.next_entry::<String, u64>()? {
                let known = K::KINDS.iter().zip(&mut counts).find(|(kind, _)| kind.name() == name);
                if let Some((_, place)) = known {
                    *place = count;
                }
            }
            Ok(counts)
        }
    }

    deserializer.deserialize_map(Counts::<K, N>(PhantomData))
}

/// For `#[serde(with)]`.
macro_rules! by_name {
    ($module:ident, $kind:ty) => {
        pub(super) mod $module {
            use super::{Deserializer, Serializer};

            type Counts = [u64; <$kind>::KINDS];

            pub(in super::super) fn serialize<S: Serializer>(
                counts: &Counts,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                super::serialize::<$kind, S>(counts, serializer)
            }

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Counts, D::Error> {
                super::deserialize::<$kind, D, { <$kind>::KINDS }>(deserializer)
            }
        }
    };
}

by_name!(answered, super::Answered);
by_name!(dropped, super::DropReason);
