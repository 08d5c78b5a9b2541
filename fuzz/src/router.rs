//! Router advertisements: the prefixes in them, and until when addresses of these are their hosts'.

use core::net::Ipv6Addr;

use surrogate::responder::router::{Advertised, MAX_PREFIXES, TWO_HOURS};
use surrogate::time::{Duration, Instant};
use surrogate_wire::emit::Ipv6Header;
use surrogate_wire::icmpv6::ALL_NODES;
use surrogate_wire::{Packet, Transport, protocol, router};

use crate::input::{self, Input};
use crate::lan;

/// One byte of what each step is, then what it needs.
pub(crate) fn run(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut lan = Lan {
        known: Advertised::default(),
        now: Instant::from_nanos(1_000_000_000),
        promised: [Instant::ZERO; HOSTS.len()],
        understood: false,
    };
    let mut steps = 0;
    while !input.is_empty() && steps < 100 {
        match input.byte() & 7 {
            0 => lan.now = lan.now + Duration::from_secs(u64::from(input.u16())),
            1 => lan.restart(Duration::from_secs(input.u32().into())),
            _ => lan.hear(input.chunk()),
        }
        lan.check();
        steps += 1;
    }
    lan.understood
}

struct Lan {
    known: Advertised,
    now: Instant,
    /// Until when each host has its address for certain.
    promised: [Instant; HOSTS.len()],
    understood: bool,
}

impl Lan {
    /// An advertisement from the part behind its checksum on.
    fn hear(&mut self, rest: &[u8]) {
        let src = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let header =
            Ipv6Header { src, dst: ALL_NODES, traffic_class: 0, hop_limit: 255, protocol: protocol::ICMPV6 };
        let message = [&[134, 0, 0, 0], rest].concat();
        let mut bytes = lan::written(|out| {
            out.ipv6(&lan::to(surrogate_wire::Mac([0x33, 0x33, 0, 0, 0, 1])), &header, message.len());
            out.push(&message);
        });
        lan::mend(&mut bytes);
        let Some((_, packet)) = lan::read(&bytes) else { return };
        let Packet::Ipv6(ip, Transport::Icmpv6(icmp)) = &packet else { panic!("{packet:?}") };
        let told = router::prefixes(ip, icmp).expect("it is an advertisement from the link");
        let mut count = 0;
        for prefix in told {
            assert!(prefix.len <= 128 && prefix.covers(prefix.prefix), "{prefix:?}");
            let host = u128::MAX.checked_shr(prefix.len.into()).unwrap_or(0);
            assert_eq!(prefix.prefix.to_bits() & host, 0, "{prefix:?}");
            count += 1;
        }
        assert!(count <= rest.len() / 32);
        self.understood |= count > 0;
        self.known.hear(self.now, &packet);
    }

    /// Another daemon takes what this one knew so long ago.
    fn restart(&mut self, ago: Duration) {
        let kept = self.known.learned(self.now, HOSTS.into_iter());
        assert!(kept.len() <= HOSTS.len().min(MAX_PREFIXES));
        let text = serde_json::to_vec(&kept).expect("plain values");
        let kept: Vec<_> = serde_json::from_slice(&text).expect("it was written so");
        let mut next = Advertised::default();
        next.restore(&kept, self.now, ago);
        for host in HOSTS {
            let (was, is) = (self.known.valid_until(self.now, host), next.valid_until(self.now, host));
            assert_eq!(is.is_some(), was.is_some(), "{host}: {kept:?}");
            assert!(is.is_none_or(|until| until == self.now + TWO_HOURS), "{host}: time to hear it again");
        }
        self.known = next;
        self.promised = [self.now; HOSTS.len()];
    }

    /// What was said of an address holds, whatever is advertised in between.
    fn check(&mut self) {
        for (host, promised) in HOSTS.into_iter().zip(&mut self.promised) {
            match self.known.valid_until(self.now, host) {
                Some(until) => {
                    assert!(until > self.now && until <= self.now + TWO_HOURS);
                    assert!(until >= *promised, "{host} ends at {until:?} and not at {promised:?}");
                    *promised = until;
                }
                None => assert!(*promised <= self.now, "{host} was to last until {promised:?}"),
            }
        }
    }
}

/// In two prefixes of the seeds, in one that is never advertised there, and on the link.
const HOSTS: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11),
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11),
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11),
];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let option = |third: u8, len: u8, valid: u32| {
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, third.into(), 0, 0, 0, 0, 0).octets();
        [&[3, 4, len, 0xc0], &valid.to_be_bytes()[..], &[0; 8], &prefix].concat()
    };
    let advertised = |options: &[Vec<u8>]| {
        let rest = [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &options.concat()].concat();
        [&[2][..], &input::chunk(&rest)].concat()
    };
    let link_layer = vec![1, 1, 0x52, 0x54, 0, 0, 0, 1];
    let hour = [0, 14, 16];
    vec![
        advertised(&[option(0, 64, 86_400), option(1, 64, 7_200)]),
        [advertised(&[link_layer, option(0, 64, 7_200)]), hour.to_vec(), advertised(&[option(0, 64, 0)])]
            .concat(),
        [advertised(&[option(0, 64, u32::MAX)]), vec![1, 0, 1, 0, 0], advertised(&[option(0, 64, 60)])]
            .concat(),
        [advertised(&[option(1, 64, 7_200)]), hour.repeat(3), vec![1, 0, 0, 0, 9], hour.repeat(3)].concat(),
        advertised(&(0..18).map(|n| option(n, 64, 9_000)).collect::<Vec<_>>()),
        advertised(&[option(0, 48, 9_000), option(0, 128, 9_000), option(0, 129, 9_000)]),
    ]
}
