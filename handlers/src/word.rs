//! One spelling per value: reading and writing the words of a plan.

use core::fmt;

/// A word that is none of those known at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// What was found.
    pub found: String,
    /// What could have stood there.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown word \"{}\": wanted one of {}", self.found, self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

/// Gives an enumeration without values its words: `ALL`, `word`, `Display` and `FromStr`.
macro_rules! words {
    ($name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            const WORDS: &'static [&'static str] = &[$($word),+];

            /// Its word.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl core::str::FromStr for $name {
            type Err = $crate::word::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().copied().find(|value| value.word() == text);
                found.ok_or_else(|| $crate::word::UnknownWord { found: text.to_owned(), known: Self::WORDS })
            }
        }

        #[cfg(test)]
        mod words {
            use super::$name;

            #[test]
            fn every_word_means_itself_and_no_other() {
                for value in $name::ALL {
                    assert_eq!(value.to_string().parse(), Ok(*value));
                }
                let mut words = $name::WORDS.to_vec();
                words.sort_unstable();
                words.dedup();
                assert_eq!(words.len(), $name::ALL.len());
                let error = "no such word".parse::<$name>().unwrap_err().to_string();
                assert!(error.contains($name::WORDS[0]), "{error}");
            }
        }
    };
}
pub(crate) use words;
