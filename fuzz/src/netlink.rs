//! What the kernel says over netlink: datagrams of messages, links, forwarding and group entries. The kernel is
//! trusted, but names and addresses in its messages are anybody's, and a newer kernel says more than we know.

use surrogate::io::netlink::{self, FdbEntry, GroupEntry, Link, Messages, PortVlan, Reply, acknowledged};

pub(crate) fn run(data: &[u8]) -> bool {
    let mut understood = false;
    let (mut messages, mut bytes) = (0, 0);
    for message in Messages(data) {
        messages += 1;
        let Ok((header, payload)) = message else { break };
        bytes += payload.len();
        if let Err(why) = acknowledged(&header, payload) {
            assert!(!why.to_string().is_empty());
        }
        let reply = Reply { kind: header.message_type, payload: payload.to_vec() };
        understood |= GroupEntry::all_in(&reply, BRIDGE).count() > 0;
        if let Some(message) = reply.route() {
            understood |= FdbEntry::read(&message).is_some();
            understood |= PortVlan::all_of(&message).count() > 0;
            understood |= Link::read(message).is_some();
        }
    }
    // A header of 16 bytes each.
    assert!(messages <= data.len() / 16 + 1 && bytes <= data.len());
    assert!(netlink::concerned(data).len() <= messages);
    understood
}

const BRIDGE: u32 = 3;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let name = |text: &str| attribute(3, &[text.as_bytes(), &[0]].concat());
    let link_header = [&[0, 0, 1, 0][..], &7_u32.to_ne_bytes(), &0x1043_u32.to_ne_bytes(), &[0; 4]].concat();
    let tap = attribute(0x12, &[attribute(1, b"tun\0"), attribute(2, &attribute(3, &[2]))].concat());
    let port_settings = [attribute(1, &[3]), attribute(9, &[1]), attribute(27, &[1])].concat();
    let port = attribute(
        0x12,
        &[attribute(1, b"veth\0"), attribute(4, b"bridge\0"), attribute(5, &port_settings)].concat(),
    );
    let own = attribute(1, &[0x52, 0x54, 0, 0, 0, 0x11]);
    let (mtu, master, qdisc) = (
        attribute(4, &1500_u32.to_ne_bytes()),
        attribute(10, &BRIDGE.to_ne_bytes()),
        attribute(6, b"noqueue\0"),
    );
    let link = |info: &[u8]| [&link_header[..], &name("vnet0"), &own, &mtu, &master, &qdisc, info].concat();
    let vlans = attribute(26, &[attribute(2, &[6, 0, 1, 0]), attribute(2, &[0, 0, 7, 0])].concat());
    let bridge_link = [&[7, 0, 1, 0][..], &BRIDGE.to_ne_bytes(), &[0; 8], &vlans].concat();
    let neighbour = [
        &[7, 0, 0, 0][..],
        &7_u32.to_ne_bytes(),
        &[0x40, 0, 0x22, 0],
        &attribute(2, &[0x52, 0x54, 0, 0, 0, 0x11]),
        &attribute(5, &[7, 0]),
        &master,
    ]
    .concat();
    let entry = [
        &7_u32.to_ne_bytes()[..],
        &[1, 0, 7, 0],
        &[239, 1, 1, 1],
        &[0; 12],
        &[8, 0, 0, 0],
        &attribute(3, &[1]),
        &attribute(2, &attribute(1, &attribute(1, &[192, 0, 2, 9]))),
    ]
    .concat();
    let groups =
        [&[7, 0, 0, 0][..], &BRIDGE.to_ne_bytes(), &attribute(1, &attribute(1, &attribute(1, &entry)))]
            .concat();
    let refusal = [&(-22_i32).to_ne_bytes()[..], &[0; 16], &attribute(1, b"no such\0")].concat();
    let qdisc_notice = [&[0, 0, 0, 0][..], &7_u32.to_ne_bytes(), &[0; 12], &attribute(1, b"fq\0")].concat();
    vec![
        message(16, &link(&tap)),
        [message(16, &link(&port)), message(17, &link(&[]))].concat(),
        message(16, &bridge_link),
        message(28, &neighbour),
        message(84, &groups),
        [message(86, &groups), message(3, &[0; 4])].concat(),
        message(2, &refusal),
        message(36, &qdisc_notice),
    ]
}

fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + payload.len()).expect("a seed is short");
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([2, 0]);
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("a seed is short");
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
