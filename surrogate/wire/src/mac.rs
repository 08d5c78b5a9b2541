//! Ethernet addresses.

use core::fmt;

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, which no station has.
    pub const ZERO: Self = Self([0; 6]);

    /// One station: neither group address nor all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self != Self::ZERO
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a text is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseMacError(String);

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is no MAC address: wanted six hexadecimal bytes, as 52:54:00:00:00:11", self.0)
    }
}

impl std::error::Error for ParseMacError {}

impl core::str::FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let refuse = || ParseMacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(refuse)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() { Err(refuse()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mac = Mac([0x52, 0x54, 0, 0, 0xa, 0xff]);
        assert_eq!(mac.to_string(), "52:54:00:00:0a:ff");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!("52:54:00:00:0A:FF".parse(), Ok(mac));
    }

    #[test]
    fn refuses_what_is_no_address_and_says_what_is_wanted() {
        for text in [
            "",
            "52:54:00:00:0a",
            "52:54:00:00:0a:ff:00",
            "52-54-00-00-0a-ff",
            "5:54:00:00:0a:ff",
            "+2:54:00:00:0a:ff",
        ] {
            let error = text.parse::<Mac>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("\"{text}\" is no MAC address")), "{error}");
        }
    }

    #[test]
    fn groups_and_zero_are_no_stations() {
        assert!(Mac([0x52, 0, 0, 0, 0, 0]).is_unicast());
        assert!(!Mac::BROADCAST.is_unicast());
        assert!(!Mac([0x33, 0x33, 0, 0, 0, 1]).is_unicast());
        assert!(!Mac::ZERO.is_unicast());
    }
}
