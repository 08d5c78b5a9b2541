//! Records of the journal as they come back from a disk: JSON of another version, or damaged. What is accepted is
//! written again as the same record.

use serde::{Serialize, de::DeserializeOwned};
use surrogate::io::journal::{Change, GuestRecord, Known};

use crate::knowledge;

pub(crate) fn run(data: &[u8]) -> bool {
    if let Some(change) = again::<Change>(data) {
        let (key, mac) = (change.key(), change.mac.to_string());
        assert!(key.starts_with(&change.bridge) && key.contains(&mac), "{key}");
    }
    again::<Change>(data).is_some() | again::<GuestRecord>(data).is_some() | again::<Known>(data).is_some()
}

fn again<T: Serialize + DeserializeOwned + PartialEq>(data: &[u8]) -> Option<T> {
    let record: T = serde_json::from_slice(data).ok()?;
    let text = serde_json::to_vec(&record).expect("plain values");
    assert!(serde_json::from_slice::<T>(&text).is_ok_and(|read| read == record), "{}", text.escape_ascii());
    Some(record)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let change = |what: &str| {
        let of = r#""guest":"web1","bridge":"br0","mac":"52:54:00:00:00:11","vlan":7"#;
        format!(r#"{{{of},"what":{what}}}"#).into_bytes()
    };
    let port = r#"{"ifindex":3,"name":"vnet0","mac":"fe:54:00:00:00:11"}"#;
    let mut seeds = vec![
        change(&format!(r#"{{"kind":"steered","guest_port":{port},"was":null}}"#)),
        change(&format!(r#"{{"kind":"groups-kept","port":{port},"groups":["239.1.1.1","ff02::fb"]}}"#)),
        change(&format!(r#"{{"kind":"port-disabled","port":{port},"state":3}}"#)),
    ];
    let guest = r#"{"name":"web1","hypervisor":"kvm","epoch":7,"slept_by_us":true,"depth":"save","intent":"sleep",
        "since_unix_ms":1700000000000}"#;
    seeds.push(guest.as_bytes().to_vec());
    for knowledge in knowledge::seeds().into_iter().take(8) {
        let knowledge = String::from_utf8(knowledge).expect("JSON is text");
        let known = format!(r#"{{"guest":"web1","at_unix_ms":1700000000000,"knowledge":{knowledge}}}"#);
        seeds.push(known.into_bytes());
    }
    seeds
}
