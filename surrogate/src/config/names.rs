//! What a guest is called: `[guest.names]` and `[[guest.service]]`, from what is written to what it means.

use core::ops::Range;

use surrogate_wire::netbios;
use toml::de::DeValue;

use super::error::Problem;
use super::reader::{At, Section};
use super::value::{integer, name, shown, string};
use crate::policy::names::{MAX_NETBIOS, MAX_SERVICES, MAX_TEXT, Names, NetbiosName, Service};

/// `[guest.names]`.
#[derive(Default)]
pub(super) struct NamesKeys {
    pub(super) host: Option<At<String>>,
    pub(super) netbios: Vec<At<NetbiosName>>,
}

/// `[[guest.service]]`.
pub(super) struct ServiceSection {
    pub(super) name: Option<At<String>>,
    pub(super) kind: Option<At<String>>,
    pub(super) port: Option<At<u16>>,
    pub(super) txt: Vec<At<String>>,
}

/// Reads `[guest.names]`.
pub(super) fn keys(section: &mut Section<'_, '_>) -> NamesKeys {
    NamesKeys {
        host: section.take("host", host_name),
        netbios: section.list("netbios", netbios_name).unwrap_or_default(),
    }
}

/// Reads `[[guest.service]]`.
pub(super) fn service(section: &mut Section<'_, '_>) -> ServiceSection {
    ServiceSection {
        name: section.require("name", service_name),
        kind: section.require("kind", service_kind),
        port: section.require("port", port),
        txt: section.list("txt", text_record).unwrap_or_default(),
    }
}

/// What was written for the guest at `place`.
pub(super) fn convert(
    keys: NamesKeys,
    sections: Vec<At<ServiceSection>>,
    place: &str,
    problems: &mut Vec<Problem>,
) -> Names {
    if let Some(one_more) = keys.netbios.get(MAX_NETBIOS) {
        let what = format!("{place}: {} `netbios` names, at most {MAX_NETBIOS}", keys.netbios.len());
        problems.push(Problem::new(&one_more.span, what));
    }
    if let Some(one_more) = sections.get(MAX_SERVICES) {
        let what = format!("{place}: {} [[guest.service]], at most {MAX_SERVICES}", sections.len());
        problems.push(Problem::new(&one_more.span, what));
    }
    if let (None, Some(first)) = (&keys.host, sections.first()) {
        let what =
            format!("{place}: a service is at a host: give its name, as names = {{ host = \"printer\" }}");
        problems.push(Problem::new(&first.span, what));
    }
    let mut services: Vec<Service> = Vec::new();
    let mut spans: Vec<Range<usize>> = Vec::new();
    for At { value: section, span } in sections {
        let long: usize = section.txt.iter().map(|text| 1 + text.value.len()).sum();
        if long > MAX_TEXT {
            let what = format!("{place}: `txt` has {long} bytes in all, at most {MAX_TEXT}");
            problems.push(Problem::new(&span, what));
        }
        let (Some(name), Some(kind), Some(port)) = (section.name, section.kind, section.port) else {
            continue;
        };
        let same = |known: &Service| known.name == name.value && known.kind == kind.value;
        if let Some(first) = services.iter().position(same).and_then(|at| spans.get(at)).cloned() {
            let what = format!("{place} has two services \"{}\" of kind {}", name.value, kind.value);
            problems.push(Problem::again(&span, &first, what));
        }
        let txt = section.txt.into_iter().map(|text| text.value).collect();
        services.push(Service { name: name.value, kind: kind.value, port: port.value, txt });
        spans.push(span);
    }
    Names {
        host: keys.host.map(|at| at.value),
        netbios: keys.netbios.into_iter().map(|at| at.value).collect(),
        services,
    }
}

/// A port number.
fn port(value: &DeValue<'_>) -> Result<u16, String> {
    integer(value)
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("wanted a port from 1 to 65535, found {}", shown(value)))
}

/// A host's name on its link: one label.
fn host_name(value: &DeValue<'_>) -> Result<String, String> {
    let text = label(value)?;
    match text.split_once('.') {
        Some((host, _)) => Err(format!("{text:?}: wanted the first part of the name alone, as {host:?}")),
        None => Ok(text),
    }
}

/// What a service is called; it may have spaces and dots in it.
fn service_name(value: &DeValue<'_>) -> Result<String, String> {
    label(value)
}

fn label(value: &DeValue<'_>) -> Result<String, String> {
    let text = name(value)?;
    match text.len() {
        0..=63 => Ok(text),
        long => Err(format!("wanted at most 63 bytes, found {long}")),
    }
}

/// A service's type and transport (RFC 6335 5.1, RFC 6763 7).
fn service_kind(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    let service = text.strip_suffix("._tcp").or_else(|| text.strip_suffix("._udp"));
    let service = service.and_then(|text| text.strip_prefix('_'));
    let fits = |name: &str| {
        (1..=15).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match service {
        Some(name) if fits(name) => Ok(text.to_owned()),
        _ => Err(format!(
            "wanted \"_NAME._tcp\" or \"_NAME._udp\" with 1 to 15 letters, digits or hyphens, found \"{text}\""
        )),
    }
}

/// An entry of `txt`.
fn text_record(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value)?;
    match (text.len(), text.starts_with('=')) {
        (1..=255, false) => Ok(text.to_owned()),
        (1..=255, true) => Err(format!("{text:?} has no key: wanted \"KEY=VALUE\" or \"KEY\"")),
        (long, _) => Err(format!("wanted 1 to 255 bytes, found {long}")),
    }
}

/// An entry of `netbios`: a name, its suffix as other tools show it, and whether it is a group's.
fn netbios_name(value: &DeValue<'_>) -> Result<NetbiosName, String> {
    let text = string(value)?;
    let wanted = || {
        format!(
            "wanted a name of 1 to 15 characters, as \"PRINTER\", \"PRINTER<20>\" or \"OFFICE<00> group\", \
             found \"{text}\""
        )
    };
    let (name, group) = text.strip_suffix(" group").map_or((text, false), |name| (name, true));
    let (name, suffix) = match name.strip_suffix('>').map(|name| name.split_once('<')) {
        None => (name, 0),
        Some(Some((name, hex))) if hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            (name, u8::from_str_radix(hex, 16).map_err(|_| wanted())?)
        }
        Some(_) => return Err(wanted()),
    };
    let fits = |b: u8| b.is_ascii_graphic() && !b"\"*<>|/\\:".contains(&b);
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(wanted());
    }
    let name = netbios::Name::new(&name.to_ascii_uppercase(), suffix).ok_or_else(wanted)?;
    Ok(NetbiosName { name, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn a_host_name_is_one_label() {
        assert_eq!(host_name(&text("printer")), Ok("printer".to_owned()));
        let error = host_name(&text("printer.local")).unwrap_err();
        assert_eq!(error, "\"printer.local\": wanted the first part of the name alone, as \"printer\"");
        assert_eq!(host_name(&text(&"x".repeat(64))), Err("wanted at most 63 bytes, found 64".to_owned()));
        assert!(service_name(&text("Laser printer, 2. floor")).is_ok());
    }

    #[test]
    fn a_services_type_is_name_and_transport() {
        assert_eq!(service_kind(&text("_http._tcp")), Ok("_http._tcp".to_owned()));
        for bad in ["http._tcp", "_http", "_http.tcp", "_._tcp", "_sixteen-letters-x._udp", "_a_b._tcp", ""] {
            let error = service_kind(&text(bad)).unwrap_err();
            assert!(error.contains("wanted \"_NAME._tcp\"") && error.contains(bad), "{bad}: {error}");
        }
        assert!(text_record(&text("path=/")).is_ok() && text_record(&text("color")).is_ok());
        for (bad, why) in [("", "found 0"), ("=x", "no key"), (&"x".repeat(256), "found 256")] {
            assert!(text_record(&text(bad)).unwrap_err().contains(why), "{bad}");
        }
        assert!(port(&DeValue::Boolean(true)).unwrap_err().contains("wanted a port from 1 to 65535"));
    }

    #[test]
    fn netbios_names_have_a_suffix_and_may_be_a_groups() {
        let read = |written: &str| netbios_name(&text(written)).map(|read| (read.name.0, read.group));
        assert_eq!(read("Printer"), Ok((*b"PRINTER        \0", false)));
        assert_eq!(read("PRINTER<20>"), Ok((*b"PRINTER        \x20", false)));
        assert_eq!(read("OFFICE<1e> group"), Ok((*b"OFFICE         \x1e", true)));
        for bad in [
            "",
            "<20>",
            "PRINTER<2>",
            "PRINTER<xy>",
            "PRINTER<+2>",
            "PRINTER>",
            "A B",
            "*",
            "SIXTEEN-BYTES-OK",
            "X groups",
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.starts_with("wanted a name of 1 to 15 characters"), "{bad}: {error}");
            assert!(error.ends_with(&format!("found \"{bad}\"")), "{bad}: {error}");
        }
    }
}
