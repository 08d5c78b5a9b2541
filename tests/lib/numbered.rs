//! Frames with a flow's name and a number in them, so that each can be told and counted where it arrives.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::capture::{Frame, Sender};
use crate::namespace::Namespace;

/// IEEE Std 802, local experimental EtherType 1.
const EXPERIMENTAL: u16 = 0x88b5;

/// Something that sends numbered frames of one flow to a guest. Names begin with `flow-`.
pub trait Flow {
    /// Sends the frame of this number.
    fn send(&self, number: u32);
}

/// Datagrams to udp/514 from a port of their own.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    to: SocketAddr,
    name: String,
    /// What follows the number.
    padding: usize,
}

impl Datagrams {
    /// From `client` to `address`.
    ///
    /// # Panics
    /// If there is no socket to be had.
    #[must_use]
    #[track_caller]
    pub fn new(client: &Namespace, address: IpAddr, name: &str) -> Self {
        let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = client.enter(|| UdpSocket::bind(any)).unwrap();
        Self { socket, to: SocketAddr::new(address, 514), name: name.to_owned(), padding: 0 }
    }

    /// The same, each datagram longer by `padding` bytes.
    #[must_use]
    pub fn longer(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }
}

impl Flow for Datagrams {
    fn send(&self, number: u32) {
        let mut payload = format!("{} {number}.", self.name).into_bytes();
        payload.resize(payload.len() + self.padding, b'.');
        self.socket.send_to(&payload, self.to).unwrap();
    }
}

/// Frames of another EtherType: Ethernet is all that they and the guest have in common.
#[derive(Debug)]
pub struct Bare {
    sender: Sender,
    header: Vec<u8>,
    name: String,
}

impl Bare {
    /// From `eth0` of `client`, whose MAC is `own`, to `mac`.
    ///
    /// # Panics
    /// If `mac` is none.
    #[must_use]
    #[track_caller]
    pub fn new(client: &Namespace, mac: &str, own: [u8; 6], name: &str) -> Self {
        let mut header: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
        header.extend(own);
        Self { sender: Sender::new(client, "eth0"), header, name: name.to_owned() }
    }
}

impl Flow for Bare {
    fn send(&self, number: u32) {
        let mut frame = self.header.clone();
        frame.extend(EXPERIMENTAL.to_be_bytes());
        frame.extend(format!("{} {number}.", self.name).bytes());
        frame.resize(frame.len().max(60), 0);
        self.sender.send(&frame);
    }
}

/// The flow and number that a frame carries, if it is one of these.
#[must_use]
pub fn numbered(frame: &Frame) -> Option<(String, u32)> {
    let payload = match frame.ethertype()? {
        (EXPERIMENTAL, at) => frame.bytes.get(at..)?,
        _ => frame.datagram()?.2,
    };
    let text = String::from_utf8_lossy(payload);
    let (flow, rest) = text.split_once(' ')?;
    let number = rest.split_once('.')?.0.parse().ok()?;
    flow.starts_with("flow-").then(|| (flow.to_owned(), number))
}

/// The numbers of a flow's frames that came in, in the order of their arrival.
#[must_use]
pub fn arrived(frames: &[Frame], flow: &str) -> Vec<u32> {
    let incoming = frames.iter().filter(|frame| !frame.outgoing).filter_map(numbered);
    incoming.filter(|(name, _)| name == flow).map(|(_, number)| number).collect()
}
