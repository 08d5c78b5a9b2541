//! JSON pointers (RFC 6901): one value out of a body, without a tree of the rest.
//!
//! The document is walked once; what the pointer does not name is skipped as it is read. So the work is
//! that of reading the bytes, and the memory that of the one value found.

use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The longest pointer, in bytes.
pub const MAX_POINTER: usize = 256;
/// The deepest pointer, in steps.
pub const MAX_DEPTH: usize = 16;

/// A pointer into a JSON document, as `/items/0/state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// A value that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Flag(bool),
    /// Any number, with the precision of 64-bit floating point.
    Number(f64),
    /// A string.
    Text(String),
}

/// What a pointer names.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A value that can be compared.
    Scalar(Scalar),
    /// A list or an object.
    Composite,
}

impl Pointer {
    /// Reads a pointer: empty for the whole document, else `/` before each step; `~1` means `/`, `~0` means `~`.
    ///
    /// # Errors
    /// Says what was wanted instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted =
            |what: &str| Err(format!("wanted a JSON pointer {what}, found \"{}\"", text.escape_debug()));
        if text.len() > MAX_POINTER {
            return Err(format!(
                "wanted a JSON pointer of at most {MAX_POINTER} bytes, found {}",
                text.len()
            ));
        }
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return wanted("that begins with /, as \"/state\"");
        };
        let steps: Vec<&str> = rest.split('/').collect();
        if steps.len() > MAX_DEPTH {
            return Err(format!("wanted a JSON pointer of at most {MAX_DEPTH} steps, found {}", steps.len()));
        }
        if steps.iter().any(|step| step.split('~').skip(1).any(|after| !after.starts_with(['0', '1']))) {
            return wanted("in which ~ stands only as ~0 or ~1");
        }
        Ok(Self(steps.into_iter().map(|step| step.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// The whole document.
    #[must_use]
    pub const fn whole() -> Self {
        Self(Vec::new())
    }

    /// What it names in `document`; `None` if that is no valid JSON or names nothing.
    ///
    /// Of a name that an object has twice, the last one counts.
    #[must_use]
    pub fn find(&self, document: &[u8]) -> Option<Found> {
        let mut reader = serde_json::Deserializer::from_slice(document);
        let found = Walk(&self.0).deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        found
    }
}

struct Walk<'t>(&'t [String]);

impl Walk<'_> {
    fn scalar<E>(&self, scalar: Scalar) -> Result<Option<Found>, E> {
        Ok(self.0.is_empty().then_some(Found::Scalar(scalar)))
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Option<Found>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Option<Found>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        self.scalar(Scalar::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        self.scalar(Scalar::Flag(flag))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers compare as 64-bit floating point")]
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        self.scalar(Scalar::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers compare as 64-bit floating point")]
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        self.scalar(Scalar::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        self.scalar(Scalar::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        if self.0.is_empty() { self.scalar(Scalar::Text(text.to_owned())) } else { Ok(None) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = self.0.is_empty().then_some(Found::Composite);
        let wanted = self.0.split_first().and_then(|(step, rest)| Some((index(step)?, rest)));
        let mut at = 0_usize;
        loop {
            match wanted {
                Some((index, rest)) if index == at => match list.next_element_seed(Walk(rest))? {
                    Some(inside) => found = inside,
                    None => return Ok(found),
                },
                _ if list.next_element::<IgnoredAny>()?.is_none() => return Ok(found),
                _ => {}
            }
            at = at.saturating_add(1);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = self.0.is_empty().then_some(Found::Composite);
        while let Some(name) = object.next_key::<String>()? {
            match self.0.split_first() {
                Some((step, rest)) if *step == name => found = object.next_value_seed(Walk(rest))?,
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A place in a list: digits without a leading zero (RFC 6901 4).
fn index(step: &str) -> Option<usize> {
    let plain = step.bytes().all(|byte| byte.is_ascii_digit()) && (step == "0" || !step.starts_with('0'));
    if plain { step.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &[u8] = br#"{"state":"done","n":[7,{"a/b":null,"~":true}],"x":1,"x":2.5,"":-3}"#;

    fn find(pointer: &str) -> Option<Found> {
        Pointer::parse(pointer).unwrap().find(DOCUMENT)
    }

    #[test]
    fn a_pointer_names_one_value() {
        assert_eq!(find("/state"), Some(Found::Scalar(Scalar::Text("done".to_owned()))));
        assert_eq!(find("/n/0"), Some(Found::Scalar(Scalar::Number(7.0))));
        assert_eq!(find("/n/1/a~1b"), Some(Found::Scalar(Scalar::Null)));
        assert_eq!(find("/n/1/~0"), Some(Found::Scalar(Scalar::Flag(true))));
        assert_eq!(find("/"), Some(Found::Scalar(Scalar::Number(-3.0))));
        assert_eq!([find(""), find("/n")], [Some(Found::Composite), Some(Found::Composite)]);
        assert_eq!(find("/x"), Some(Found::Scalar(Scalar::Number(2.5))), "the last one counts");
        for nothing in ["/n/2", "/n/00", "/n/-", "/state/0", "/State", "/n/99999999999999999999999"] {
            assert_eq!(find(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_not_one_whole_document_has_nothing_in_it() {
        let pointer = Pointer::parse("/a").unwrap();
        for wrong in [&b""[..], b"{\"a\":1", b"{\"a\":1} x", b"{a:1}", b"\xff"] {
            assert_eq!(pointer.find(wrong), None);
        }
        assert_eq!(pointer.find(" {\"a\" : 1}\n".as_bytes()), Some(Found::Scalar(Scalar::Number(1.0))));
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert_eq!(pointer.find(&deep), None, "neither found nor fatal");
    }

    #[test]
    fn a_pointer_that_is_none_is_refused() {
        for (wrong, why) in [
            ("state", "wanted a JSON pointer that begins with /, as \"/state\", found \"state\""),
            ("/a~2", "wanted a JSON pointer in which ~ stands only as ~0 or ~1, found \"/a~2\""),
            ("/a~", "wanted a JSON pointer in which ~ stands only as ~0 or ~1, found \"/a~\""),
        ] {
            assert_eq!(Pointer::parse(wrong).unwrap_err(), why);
        }
        let why = Pointer::parse(&"/a".repeat(17)).unwrap_err();
        assert_eq!(why, "wanted a JSON pointer of at most 16 steps, found 17");
        let why = Pointer::parse(&format!("/{}", "a".repeat(256))).unwrap_err();
        assert_eq!(why, "wanted a JSON pointer of at most 256 bytes, found 257");
    }
}
