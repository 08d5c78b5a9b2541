//! HTTP status codes by class (RFC 9110 15).

/// The class of a status code, its first digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusClass {
    /// 1xx: interim, another response follows.
    Informational,
    /// 2xx.
    Successful,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
}

crate::word::words!(StatusClass {
    Informational = "1xx",
    Successful = "2xx",
    Redirection = "3xx",
    ClientError = "4xx",
    ServerError = "5xx",
});

impl StatusClass {
    /// The class of `code`; `None` outside 100 to 599, which RFC 9110 calls invalid.
    #[must_use]
    pub const fn of(code: u16) -> Option<Self> {
        match code {
            100..=199 => Some(Self::Informational),
            200..=299 => Some(Self::Successful),
            300..=399 => Some(Self::Redirection),
            400..=499 => Some(Self::ClientError),
            500..=599 => Some(Self::ServerError),
            _ => None,
        }
    }

    /// Whether a response of this class is the last one to its request.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Informational)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_digit_decides() {
        for (code, class) in [(100, "1xx"), (206, "2xx"), (304, "3xx"), (499, "4xx"), (599, "5xx")] {
            assert_eq!(StatusClass::of(code).unwrap().word(), class);
        }
        assert!([0, 99, 600, 999].into_iter().all(|code| StatusClass::of(code).is_none()));
        let interim: Vec<_> = StatusClass::ALL.iter().filter(|class| !class.is_final()).collect();
        assert_eq!(interim, [&StatusClass::Informational]);
    }
}
