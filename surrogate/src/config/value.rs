//! Single values: durations, sizes, names, addresses. Each reader says what it wanted and what it found.

use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroUsize;
use core::str::FromStr;
use core::time::Duration;
use std::path::PathBuf;

use toml::de::DeValue;

use super::{PortKindName, WakePolicy};
use crate::guest::identity::{InterfaceAddress, Mac};
use crate::hypervisor::Depth;
use crate::policy::traffic::{ClosedPorts, Flooded};

/// A number with a unit: "200ms", "30s", "10m", "2h".
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    written_duration(value).ok_or_else(|| format!("{DURATION}; found {}", shown(value)))
}

/// A duration that is not zero.
pub(super) fn positive_duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => Err(format!("must be longer than zero; found {}", shown(value))),
        duration => Ok(duration),
    }
}

/// A positive duration or "never".
pub(super) fn duration_or_never(value: &DeValue<'_>) -> Result<Option<Duration>, String> {
    match (value, written_duration(value)) {
        (DeValue::String(text), _) if text == "never" => Ok(None),
        (_, Some(Duration::ZERO)) => {
            Err(format!("must be longer than zero, or \"never\"; found {}", shown(value)))
        }
        (_, Some(duration)) => Ok(Some(duration)),
        (_, None) => Err(format!("{DURATION}, or \"never\"; found {}", shown(value))),
    }
}

const DURATION: &str = "wanted a duration with its unit (ms, s, m, h), as \"30s\"";

fn written_duration(value: &DeValue<'_>) -> Option<Duration> {
    match value {
        DeValue::String(text) => parse_duration(text),
        _ => None,
    }
}

/// Bytes: a number, or a text with KiB, MiB or GiB.
pub(super) fn size(value: &DeValue<'_>) -> Result<NonZeroUsize, String> {
    let bytes = match value {
        DeValue::String(text) => parse_size(text),
        DeValue::Integer(_) => integer(value),
        _ => None,
    };
    let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else {
        let wanted = "wanted a size, as \"64KiB\", \"4MiB\" or a number of bytes";
        return Err(format!("{wanted}, found {}", shown(value)));
    };
    NonZeroUsize::new(bytes).ok_or_else(|| format!("must be more than no bytes, found {}", shown(value)))
}

/// A whole number above zero.
pub(super) fn count(value: &DeValue<'_>) -> Result<u32, String> {
    match integer(value) {
        Some(n) if n > u64::from(u32::MAX) => {
            Err(format!("wanted a whole number, at most {}, found {}", u32::MAX, shown(value)))
        }
        n => n
            .and_then(|n| u32::try_from(n).ok())
            .filter(|&n| n > 0)
            .ok_or_else(|| format!("wanted a whole number above zero, found {}", shown(value))),
    }
}

/// The same, for what is counted in memory.
pub(super) fn count_in_memory(value: &DeValue<'_>) -> Result<NonZeroUsize, String> {
    let count = usize::try_from(count(value)?).ok().and_then(NonZeroUsize::new);
    count.ok_or_else(|| format!("wanted fewer, found {}", shown(value)))
}

/// TCP connections of one NIC.
pub(super) fn connections(value: &DeValue<'_>) -> Result<NonZeroUsize, String> {
    let count = count_in_memory(value)?;
    if count.get() > MOST_CONNECTIONS {
        return Err(format!("must be at most {MOST_CONNECTIONS}, found {}", shown(value)));
    }
    Ok(count)
}

/// How often a connection is kept alive from the guest's side.
pub(super) fn keep_alive(value: &DeValue<'_>) -> Result<Option<Duration>, String> {
    let interval = duration_or_never(value)?;
    if interval.is_some_and(|interval| interval < SHORTEST_KEEP_ALIVE) {
        return Err(format!("must be at least \"1s\", or \"never\"; found {}", shown(value)));
    }
    Ok(interval)
}

/// A guest has no more ports for one service of one peer; records take 300 bytes each.
const MOST_CONNECTIONS: usize = 65_536;
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A number, not negative.
pub(super) fn rate(value: &DeValue<'_>) -> Result<f64, String> {
    let number = match value {
        DeValue::Integer(n) => n.as_str().parse().ok().filter(|_| n.radix() == 10),
        DeValue::Float(n) => n.as_str().parse::<f64>().ok(),
        _ => None,
    };
    number
        .filter(|n| n.is_finite() && *n >= 0.0)
        .ok_or_else(|| format!("wanted a number, zero or above, found {}", shown(value)))
}

/// Text that is not empty and can stand in one line of a log.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, String> {
    match string(value)? {
        "" => Err("must not be empty".to_owned()),
        text if text.trim() != text => Err(format!("{text:?} must not begin or end with a space")),
        text if text.chars().any(char::is_control) => Err(format!("{text:?} has a control character in it")),
        text => Ok(text.to_owned()),
    }
}

/// The name of a network interface.
pub(super) fn interface_name(value: &DeValue<'_>) -> Result<String, String> {
    let text = name(value)?;
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if text.len() > 15 || text == "." || text == ".." || text.contains(odd) {
        return Err(format!(
            "{text:?} can be no interface's name: at most 15 bytes, without spaces, \"/\" or \":\""
        ));
    }
    Ok(text)
}

/// The name of a network namespace, as under /run/netns.
pub(super) fn netns_name(value: &DeValue<'_>) -> Result<String, String> {
    let text = name(value)?;
    if text.contains('/') || text == "." || text == ".." {
        return Err(format!("{text:?} can be no namespace's name: give it as `ip netns list` does"));
    }
    Ok(text)
}

/// A path that is not empty.
pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    name(value).map(PathBuf::from)
}

/// A path that a Unix socket can have.
pub(super) fn socket_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = path(value)?;
    match path.as_os_str().len() {
        0..=107 => Ok(path),
        long => Err(format!("{long} bytes are too long for a socket's path: at most 107")),
    }
}

/// An address with a port.
pub(super) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = string(value)?;
    text.parse()
        .map_err(|_| format!("wanted an address with a port, as \"127.0.0.1:9180\", found \"{text}\""))
}

/// A unicast MAC.
pub(super) fn mac(value: &DeValue<'_>) -> Result<Mac, String> {
    let mac = Mac::from_str(string(value)?).map_err(|why| why.to_string())?;
    if mac.is_unicast() {
        return Ok(mac);
    }
    let what = if mac == Mac::ZERO { "no station's address" } else { "a group address" };
    Err(format!("{mac} is {what}: wanted the guest's own, unicast MAC"))
}

/// An 802.1Q VLAN identifier.
pub(super) fn vlan(value: &DeValue<'_>) -> Result<u16, String> {
    integer(value)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| (1..=4094).contains(n))
        .ok_or_else(|| format!("wanted a VLAN from 1 to 4094, found {}", shown(value)))
}

/// A host's address with its prefix length.
pub(super) fn interface_address(value: &DeValue<'_>) -> Result<InterfaceAddress, String> {
    let text = string(value)?;
    let wanted = || format!("\"{text}\": wanted an address with its prefix length, as \"192.0.2.11/24\"");
    let Some((address, length)) = text.split_once('/') else {
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => format!("{text} has no prefix length: write it as \"{text}/24\""),
            Ok(IpAddr::V6(_)) => format!("{text} has no prefix length: write it as \"{text}/64\""),
            Err(_) => wanted(),
        });
    };
    let address: IpAddr = address.parse().map_err(|_| wanted())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len: u8 = length.parse().map_err(|_| wanted())?;
    if prefix_len == 0 || prefix_len > bits {
        return Err(format!("\"{text}\": the prefix length must be 1 to {bits}"));
    }
    match no_host(address, prefix_len) {
        Some(what) => Err(format!("{text} is {what}, which no guest can have")),
        None => Ok(InterfaceAddress { address, prefix_len }),
    }
}

/// A multicast address.
pub(super) fn group(value: &DeValue<'_>) -> Result<IpAddr, String> {
    let text = string(value)?;
    let group: Option<IpAddr> = text.parse().ok().filter(IpAddr::is_multicast);
    group.ok_or_else(|| {
        format!("wanted a multicast address, as \"239.1.1.1\" or \"ff05::1\", found \"{text}\"")
    })
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// An entry of `listen`.
pub(super) fn listen(value: &DeValue<'_>) -> Result<(Transport, u16), String> {
    let text = string(value)?;
    let parsed = text.split_once('/').and_then(|(transport, port)| {
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return None,
        };
        Some((transport, port.parse().ok().filter(|&port: &u16| port > 0)?))
    });
    parsed.ok_or_else(|| {
        format!("wanted \"tcp/PORT\" or \"udp/PORT\" with a port from 1 to 65535, found \"{text}\"")
    })
}

/// Key `depth`.
pub(super) fn depth(value: &DeValue<'_>) -> Result<Depth, String> {
    one_of(value, &[("pause", Depth::Pause), ("save", Depth::Save)])
}

/// Key `wake`.
pub(super) fn wake(value: &DeValue<'_>) -> Result<WakePolicy, String> {
    let words =
        [("managed", WakePolicy::Managed), ("always", WakePolicy::Always), ("never", WakePolicy::Never)];
    one_of(value, &words)
}

/// Key `closed_ports`.
pub(super) fn closed_ports(value: &DeValue<'_>) -> Result<ClosedPorts, String> {
    let words = [("reset", ClosedPorts::Reset), ("silent", ClosedPorts::Silent), ("wake", ClosedPorts::Wake)];
    one_of(value, &words)
}

/// `true` or `false`.
pub(super) fn yes_or_no(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("wanted true or false, found {}", shown(value)))
}

/// Key `flooded`.
pub(super) fn flooded(value: &DeValue<'_>) -> Result<Flooded, String> {
    one_of(value, &[("hold", Flooded::Hold), ("wake", Flooded::Wake), ("absorb", Flooded::Absorb)])
}

/// Key `port` of `[daemon]`.
pub(super) fn port_kind(value: &DeValue<'_>) -> Result<PortKindName, String> {
    one_of(value, &[("veth", PortKindName::Veth), ("tap", PortKindName::Tap)])
}

/// Key `kind` of `[[hypervisor]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Libvirt,
    Netns,
}

/// Key `kind` of `[[hypervisor]]`.
pub(super) fn kind(value: &DeValue<'_>) -> Result<Kind, String> {
    one_of(value, &[("libvirt", Kind::Libvirt), ("netns", Kind::Netns)])
}

fn one_of<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| matches!(value, DeValue::String(text) if text == word));
    found.map(|&(_, meaning)| meaning).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("wanted {}, found {}", words.join(" or "), shown(value))
    })
}

/// A text.
pub(super) fn string<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        _ => Err(format!("wanted text in quotes, found {}", shown(value))),
    }
}

/// A whole number, not negative.
pub(super) fn integer(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(n) => u64::from_str_radix(n.as_str(), n.radix()).ok(),
        _ => None,
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(ms)?))
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// What `address` is, if it is no address that one host can have.
fn no_host(address: IpAddr, prefix_len: u8) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("the unspecified address");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    match address {
        IpAddr::V4(v4) => {
            let host = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
            let bits = v4.to_bits();
            match bits & host {
                _ if v4.is_broadcast() => Some("the broadcast address"),
                _ if v4.octets().first() == Some(&0) => Some("an address of \"this network\" (0.0.0.0/8)"),
                // RFC 3021: both addresses of a /31 are hosts.
                _ if prefix_len >= 31 => None,
                0 => Some("its network's own address"),
                all if all == host => Some("its network's broadcast address"),
                _ => None,
            }
        }
        IpAddr::V6(v6) => {
            let host = u128::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
            // RFC 4291 2.6.1; RFC 6164: a /127 has none.
            let anycast = prefix_len < 127 && v6.to_bits() & host == 0;
            anycast.then_some("its network's own (subnet-router anycast) address")
        }
    }
}

/// The value as it could stand in the file, short.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 60 => "a long text".to_owned(),
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(when) => when.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn durations_need_a_known_unit() {
        assert_eq!(duration(&text("200ms")), Ok(Duration::from_millis(200)));
        assert_eq!(duration(&text("10m")), Ok(Duration::from_secs(600)));
        assert_eq!(duration(&text("2 h")), Ok(Duration::from_secs(7200)));
        assert_eq!(duration_or_never(&text("never")), Ok(None));
        for bad in ["", "10", "s", "-1s", "1.5s", "10 years", "99999999999999999999s", "9999999999999999999h"]
        {
            assert!(duration(&text(bad)).is_err(), "{bad}");
        }
        assert!(positive_duration(&text("0s")).is_err());
    }

    #[test]
    fn a_wrong_duration_says_what_was_wanted_and_what_was_found() {
        let wanted = "wanted a duration with its unit (ms, s, m, h), as \"30s\"";
        let found = Err(format!("{wanted}; found \"10 minutes\""));
        assert_eq!(duration(&text("10 minutes")), found);
        assert_eq!(positive_duration(&text("10 minutes")), found);
        let found = format!("{wanted}, or \"never\"; found \"10 minutes\"");
        assert_eq!(duration_or_never(&text("10 minutes")), Err(found));
        assert_eq!(
            duration_or_never(&DeValue::Boolean(true)),
            Err(format!("{wanted}, or \"never\"; found true"))
        );
        let found = "must be longer than zero, or \"never\"; found \"0s\"".to_owned();
        assert_eq!(duration_or_never(&text("0s")), Err(found));
        assert_eq!(positive_duration(&text("0s")), Err("must be longer than zero; found \"0s\"".to_owned()));
    }

    #[test]
    fn sizes_are_binary_and_above_zero() {
        assert_eq!(size(&text("4MiB")).unwrap().get(), 4 << 20);
        assert_eq!(size(&text("64KiB")).unwrap().get(), 64 << 10);
        assert_eq!(size(&text("100 B")).unwrap().get(), 100);
        for bad in ["4MB", "4", "0KiB", "", "MiB", "99999999999GiB"] {
            assert!(size(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_that_no_host_has_are_refused() {
        for good in [
            "192.0.2.11/24",
            "192.0.2.0/31",
            "192.0.2.1/32",
            "2001:db8::11/64",
            "2001:db8::/127",
            "fe80::1/64",
        ] {
            assert!(interface_address(&text(good)).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("192.0.2.11", "write it as \"192.0.2.11/24\""),
            ("2001:db8::11", "write it as \"2001:db8::11/64\""),
            ("192.0.2.0/24", "its network's own address"),
            ("192.0.2.255/24", "broadcast address"),
            ("255.255.255.255/32", "the broadcast address"),
            ("2001:db8::/64", "anycast"),
            ("0.0.0.0/32", "unspecified"),
            ("0.1.2.3/24", "this network"),
            ("224.0.0.1/24", "multicast"),
            ("127.0.0.1/8", "loopback"),
            ("::1/128", "loopback"),
            ("192.0.2.11/33", "1 to 32"),
            ("192.0.2.11/0", "1 to 32"),
            ("2001:db8::1/129", "1 to 128"),
            ("192.0.2.300/24", "wanted an address"),
            ("web1/24", "wanted an address"),
        ] {
            let error = interface_address(&text(bad)).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_mac_is_one_stations() {
        assert!(mac(&text("52:54:00:00:00:11")).is_ok());
        for bad in [
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "52:54:00:00:00",
            "5254.0000.0011",
        ] {
            assert!(mac(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn listen_entries_are_transport_and_port() {
        assert_eq!(listen(&text("tcp/80")), Ok((Transport::Tcp, 80)));
        assert_eq!(listen(&text("udp/7")), Ok((Transport::Udp, 7)));
        for bad in ["80", "tcp/0", "tcp/65536", "sctp/80", "tcp/", "TCP/80", "tcp/80/81"] {
            assert!(listen(&text(bad)).is_err(), "{bad}");
        }
    }
}
