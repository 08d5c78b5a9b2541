//! UDP daytime, port 13, in the name of a sleeper that is declared to run it (RFC 867): one line, whatever was asked.
//!
//! The time is our host's, in UTC; it comes in as an argument. The answer is less than three times as long as the
//! shortest question is on the wire, so that forged questions are not worth their while; and it never goes to a port
//! whose owner would answer again.

use core::time::Duration;

use surrogate_wire::{Frame, FrameBuf, Packet, emit, protocol};

use super::envelope::Envelope;
use super::udp_echo::question;
use crate::engine::Answered;
use crate::guest::identity::NicIdentity;

/// The port.
pub const PORT: u16 = 13;

/// The line, if the guest is declared to listen on the port; `unix` is the time since 1970, UTC.
pub fn reply_for(
    identity: &NicIdentity,
    unix: Duration,
    frame: &Frame<'_>,
    packet: &Packet<'_>,
    out: &mut FrameBuf<'_>,
) -> Option<Answered> {
    let udp = question(identity, packet, PORT)?;
    let envelope =
        Envelope::back(identity, frame, packet, protocol::UDP)?.dont_fragment().with_class(|_| 0, |_| 0);
    let line = line(unix);
    let header = emit::udp_header(envelope.pseudo(HEADER + line.len()), PORT, udp.src_port, &line);
    envelope.send(&header, &line, out).map(|()| Answered::Daytime)
}

/// As `inetd` writes it: "Sat Nov 21 16:28:31 2026" and the end of a line.
fn line(unix: Duration) -> [u8; LINE] {
    let seconds = unix.as_secs();
    let (days, second) = (seconds / DAY, seconds % DAY);
    let (year, month, day) = date(days);
    let two = |n: u64| [b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8];
    let [[h1, h2], [m1, m2], [s1, s2]] = [second / 3600, second / 60 % 60, second % 60].map(two);
    let [[c1, c2], [y1, y2], [d1, d2]] = [year / 100, year % 100, day].map(two);
    let name = |names: &[[u8; 3]], n: u64| names.get(n as usize).copied().unwrap_or(*b"???");
    // The first of January 1970 was a Thursday.
    let [w1, w2, w3] = name(&WEEKDAYS, (days + 4) % 7);
    let [n1, n2, n3] = name(&MONTHS, month);
    // A day of one digit has a space before it.
    let d1 = if d1 == b'0' { b' ' } else { d1 };
    [
        w1, w2, w3, b' ', n1, n2, n3, b' ', d1, d2, b' ', h1, h2, b':', m1, m2, b':', s1, s2, b' ', c1, c2,
        y1, y2, b'\r', b'\n',
    ]
}

/// Year, month from 0 on and day of the month of a day since the first of January 1970.
const fn date(days: u64) -> (u64, u64, u64) {
    // Counted in years that begin in March, so that the day more or less is the last of one; 146,097 days are
    // four centuries.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    (era * 400 + year + (month < 2) as u64, month, day)
}

const DAY: u64 = 86_400;
const HEADER: usize = 8;
const LINE: usize = 26;
const WEEKDAYS: [[u8; 3]; 7] = [*b"Sun", *b"Mon", *b"Tue", *b"Wed", *b"Thu", *b"Fri", *b"Sat"];
const MONTHS: [[u8; 3]; 12] = [
    *b"Jan", *b"Feb", *b"Mar", *b"Apr", *b"May", *b"Jun", *b"Jul", *b"Aug", *b"Sep", *b"Oct", *b"Nov",
    *b"Dec",
];

#[cfg(test)]
mod tests {
    use surrogate_wire::{Mac, Received};
    use surrogate_wire::{Transport, emit::Ethernet};

    use super::*;
    use crate::policy::traffic::{Listen, TrafficPolicy};
    use crate::responder::testing::{TO_GUEST, guest, read, udp_v4, udp_v4_to, udp_v6, v4_header, v6_header};

    const NOW: Duration = Duration::from_secs(1_795_278_511);

    fn says(seconds: u64) -> String {
        String::from_utf8(line(Duration::from_secs(seconds)).to_vec()).unwrap()
    }

    fn declared() -> NicIdentity {
        let listen = Some(Listen { tcp: vec![], udp: vec![9, 13] });
        NicIdentity { traffic: TrafficPolicy { listen, ..TrafficPolicy::default() }, ..guest() }
    }

    fn reply(identity: &NicIdentity, request: &[u8]) -> Option<Vec<u8>> {
        let frame = Frame::parse(&Received::plain(request)).unwrap();
        let packet = Packet::parse(&frame, surrogate_wire::Offload::None).unwrap();
        let mut memory = [0xee; 256];
        let mut out = FrameBuf::new(&mut memory);
        let said = reply_for(identity, NOW, &frame, &packet, &mut out)?;
        assert_eq!(said, Answered::Daytime);
        Some(out.as_bytes().to_vec())
    }

    #[test]
    fn the_line_is_that_of_the_c_library() {
        assert_eq!(says(0), "Thu Jan  1 00:00:00 1970\r\n");
        assert_eq!(says(951_782_399), "Mon Feb 28 23:59:59 2000\r\n");
        assert_eq!(says(951_782_400), "Tue Feb 29 00:00:00 2000\r\n");
        assert_eq!(says(951_868_800), "Wed Mar  1 00:00:00 2000\r\n");
        assert_eq!(says(1_735_689_599), "Tue Dec 31 23:59:59 2024\r\n");
        assert_eq!(says(1_795_278_511), "Sat Nov 21 16:28:31 2026\r\n");
        assert_eq!(says(4_107_542_400), "Mon Mar  1 00:00:00 2100\r\n", "no leap year");
        assert_eq!(line(Duration::MAX).len(), LINE, "whatever the clock says");
    }

    #[test]
    fn all_days_of_four_centuries_follow_each_other() {
        let mut before = (1970, 0, 0);
        for day in 0..146_097 {
            let (year, month, of_month) = date(day);
            let next = (year, month, of_month) == (before.0, before.1, before.2 + 1);
            let first = of_month == 1 && (before.2 >= 28 && (year, month) > (before.0, before.1));
            assert!(next || first, "{before:?}, then {:?}", (year, month, of_month));
            before = (year, month, of_month);
        }
        assert_eq!(before, (2369, 11, 31));
    }

    #[test]
    fn who_asks_is_told_in_less_than_three_times_his_bytes() {
        for request in
            [udp_v4(&v4_header(17), 40_000, PORT, &[]), udp_v6(&v6_header(17), 40_000, PORT, b"anything")]
        {
            let reply = reply(&declared(), &request).unwrap();
            let (_, packet) = read(&reply);
            let Some(Transport::Udp(udp)) = packet.transport() else { panic!("{packet:?}") };
            assert_eq!((udp.src_port, udp.dst_port), (PORT, 40_000));
            assert_eq!(udp.payload, b"Sat Nov 21 16:28:31 2026\r\n");
            assert!(reply.len() < 3 * request.len());
        }
        // On the wire of IP alone, too.
        const { assert!(20 + 8 + LINE < 3 * (20 + 8) && 40 + 8 + LINE < 3 * (40 + 8)) }
    }

    #[test]
    fn nobody_else_is_told() {
        for port in [0, 7, 13, 17, 19, 37] {
            assert_eq!(reply(&declared(), &udp_v4(&v4_header(17), port, PORT, b"x")), None, "{port}");
        }
        assert_eq!(reply(&guest(), &udp_v4(&v4_header(17), 40_000, PORT, b"x")), None, "not declared");
        let to_all = Ethernet { dst: Mac::BROADCAST, ..TO_GUEST };
        assert_eq!(reply(&declared(), &udp_v4_to(&to_all, &v4_header(17), 40_000, PORT, b"x")), None);
    }
}
