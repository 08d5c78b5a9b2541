//! The records that follow from what the operator declared, and from what the guest announced: the list of the
//! types of its services (RFC 6763 9).
//!
//! What the guest itself says of a name goes before what is declared for it.

use core::net::IpAddr;

use surrogate_wire::dns::{self, kind};

use super::store::{Record, Store};
use crate::guest::identity::NicIdentity;
use crate::policy::names::Service;

/// "the recommended TTL value for Multicast DNS resource records with a host name" (RFC 6762 10).
const HOST_TTL: u32 = 120;
/// "other Multicast DNS resource records": 75 minutes.
const OTHER_TTL: u32 = 4_500;

/// Brings the records into `store` that are not from the guest's own mouth, in place of earlier ones.
pub(super) fn declare(store: &mut Store, identity: &NicIdentity) {
    store.take_out(|record| record.heard.is_none());
    let names = &identity.traffic.names;
    if let Some(host) = &names.host {
        let host = name(&[host]);
        for held in &identity.addresses {
            address(store, &host, held.address);
        }
        for declared in &names.services {
            service(store, &host, declared);
        }
    }
    let kinds: Vec<_> = store.iter().filter_map(|(_, record)| kind_of_service(record)).collect();
    for kind in kinds {
        store.keep(Record::new(&name(&["_services", "_dns-sd", "_udp"]), kind::PTR, false, OTHER_TTL, &kind));
    }
}

fn address(store: &mut Store, host: &[u8], address: IpAddr) {
    match address {
        IpAddr::V4(v4) => unique(store, host, kind::A, HOST_TTL, &v4.octets()),
        IpAddr::V6(v6) => unique(store, host, kind::AAAA, HOST_TTL, &v6.octets()),
    }
    let mut memory = [0; dns::MAX_REVERSE];
    unique(store, dns::reverse(address, &mut memory), kind::PTR, HOST_TTL, host);
}

fn service(store: &mut Store, host: &[u8], service: &Service) {
    let labels: Vec<&str> = service.kind.split('.').collect();
    let kind_name = name(&labels);
    let instance = name(&[&[service.name.as_str()], &labels[..]].concat());
    store.keep(Record::new(&kind_name, kind::PTR, false, OTHER_TTL, &instance));
    let at = [&[0; 4][..], &service.port.to_be_bytes(), host].concat();
    unique(store, &instance, kind::SRV, HOST_TTL, &at);
    let mut text: Vec<u8> = service.txt.iter().flat_map(|text| labelled(text)).collect();
    if text.is_empty() {
        // "a single zero byte" where there is nothing to say (RFC 6763 6.1).
        text.push(0);
    }
    unique(store, &instance, kind::TXT, OTHER_TTL, &text);
}

/// A record of the guest's alone, unless it says something else there itself.
fn unique(store: &mut Store, name: &[u8], kind: u16, ttl: u32, data: &[u8]) {
    let its_own = |old: &Record| old.heard.is_some() && old.unique && old.kind == kind && old.is_of(name);
    if !store.iter().any(|(_, old)| its_own(old)) {
        store.keep(Record::new(name, kind, true, ttl, data));
    }
}

/// `_http._tcp.local`, if this is where an instance of that type is listed.
fn kind_of_service(record: &Record) -> Option<Box<[u8]>> {
    let (service, rest) = dns::split_label(&record.name)?;
    let (transport, domain) = dns::split_label(rest)?;
    let (_, target) = dns::split_label(record.target()?)?;
    let is_kind = service.starts_with(b"_")
        && [&b"_tcp"[..], b"_udp"].iter().any(|known| known.eq_ignore_ascii_case(transport))
        && domain.eq_ignore_ascii_case(LOCAL)
        && target.eq_ignore_ascii_case(&record.name);
    (record.kind == kind::PTR && is_kind).then(|| record.name.clone())
}

/// `labels` below `local`.
fn name(labels: &[&str]) -> Vec<u8> {
    labels.iter().flat_map(|label| labelled(label)).chain(LOCAL.iter().copied()).collect()
}

/// A text of at most 255 bytes with its length before it.
fn labelled(text: &str) -> impl Iterator<Item = u8> + '_ {
    let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
    core::iter::once(len).chain(text.bytes().take(usize::from(len)))
}

/// The domain.
const LOCAL: &[u8] = b"\x05local\0";
