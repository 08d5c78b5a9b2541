//! Links: looked up, and followed through all that can happen to them.

use std::time::Duration;

use surrogate::io::netlink::{Link, LinkEvent, LinkKind, watch};
use tokio::sync::mpsc::Receiver;

use crate::world::World;

#[test]
fn a_link_is_told_as_ip_tells_it() {
    let world = World::new("mcast_snooping 1");
    world.hypervisor.ip("tuntap add tap0 mode tap\n\
         tuntap add tun0 mode tun\n\
         link set tap0 mtu 1400 master br0\n\
         link set g1 address fe:54:00:00:00:11");
    world.hypervisor.bridge("link set dev g1 isolated on learning off mcast_router 2 flood off");
    world.netlink(async |netlink| {
        let guest = netlink.link("g1").await.unwrap().unwrap();
        assert_eq!(guest.ifindex, world.ifindex("g1"));
        assert_eq!(guest.mac, Some("fe:54:00:00:00:11".parse().unwrap()));
        assert_eq!(guest.master, Some(world.ifindex("br0")));
        assert_eq!((guest.up, guest.carrier, guest.mtu), (true, true, 1500));
        assert_eq!((guest.kind, guest.qdisc.as_deref()), (LinkKind::Veth, Some("noqueue")));
        let port = guest.port.unwrap();
        assert!(port.isolated && !port.learning && !port.flood && port.bcast_flood && port.mcast_flood);
        assert_eq!((port.mcast_router, port.state), (2, 3));

        let tap = netlink.link("tap0").await.unwrap().unwrap();
        assert_eq!((tap.kind, tap.mtu, tap.carrier, tap.up), (LinkKind::Tap, 1400, false, false));
        let tun = netlink.link("tun0").await.unwrap().unwrap();
        assert_eq!(tun.kind, LinkKind::Other("tun".to_owned()));
        let bridge = netlink.link("br0").await.unwrap().unwrap();
        assert_eq!(bridge.kind, LinkKind::Bridge);
        assert!(bridge.bridge.unwrap().mcast_snooping);
        assert_eq!(netlink.link_by_index(bridge.ifindex).await.unwrap().unwrap().name, "br0");

        let mut ports: Vec<_> =
            netlink.bridge_ports("br0").await.unwrap().into_iter().map(|link| link.name).collect();
        ports.sort();
        assert_eq!(ports, ["c1", "g1", "sur0", "tap0"]);
        assert!(netlink.bridge_ports("br9").await.unwrap().is_empty());
        assert!(netlink.link("nowhere").await.unwrap().is_none());
        assert!(netlink.link_by_index(9999).await.unwrap().is_none());
    });
}

#[test]
fn a_refusal_says_what_was_wanted_and_why_not() {
    let world = World::new("");
    world.netlink(async |netlink| {
        let error = netlink.set_port_state(world.ifindex("c1-in"), 0).await.unwrap_err();
        assert!(error.to_string().starts_with("set port "), "{error}");
        assert!(error.errno().is_some(), "{error}");
    });
}

#[test]
fn a_link_is_followed_from_its_making_to_its_end() {
    let world = World::new("");
    world.netlink(async |_| {
        let mut events = watch().unwrap();
        changed(&mut events, "the bridge is there", |link| link.name == "br0").await;

        world.hypervisor.ip("link add t0 type veth peer name t0-in");
        let made = changed(&mut events, "made", |link| link.name == "t0").await;
        world.hypervisor.ip("link set t0 up\nlink set t0-in up");
        changed(&mut events, "up", |link| link.name == "t0" && link.up && link.carrier).await;
        world.hypervisor.ip("link set t0 master br0");
        changed(&mut events, "enslaved", |link| link.name == "t0" && link.port.is_some()).await;
        world.hypervisor.bridge("link set dev t0 isolated on");
        changed(&mut events, "isolated", |link| {
            link.ifindex == made.ifindex && link.port.is_some_and(|port| port.isolated)
        })
        .await;
        world.hypervisor.run("tc", &["qdisc", "add", "dev", "t0", "root", "pfifo"]);
        changed(&mut events, "given a queueing discipline", |link| {
            link.ifindex == made.ifindex && link.qdisc.as_deref() == Some("pfifo")
        })
        .await;
        world.hypervisor.ip("link set t0 nomaster");
        changed(&mut events, "freed", |link| link.name == "t0" && link.master.is_none()).await;
        world.hypervisor.ip("link set t0 down\nlink set t0 name t1");
        let renamed = changed(&mut events, "renamed", |link| link.name == "t1").await;
        assert_eq!(renamed.ifindex, made.ifindex);
        world.hypervisor.ip("link del t1");
        let gone = LinkEvent::Removed { ifindex: made.ifindex, name: "t1".to_owned() };
        wait(&mut events, "deleted", |event| *event == gone).await;
    });
}

#[test]
fn a_listener_that_fell_behind_learns_every_links_last_state() {
    let world = World::new("");
    world.netlink(async |_| {
        let mut events = watch().unwrap();
        changed(&mut events, "the bridge is there", |link| link.name == "br0").await;
        // Far more notices than the channel and the socket hold, while this thread does not run the
        // watcher: the kernel throws the last of them away.
        let batch: String =
            (0..4000).map(|number| format!("link set g1 mtu {}\n", 1000 + number % 400)).collect();
        world.hypervisor.ip(&batch);
        world.hypervisor.ip("link del c1\nlink set g1 mtu 1234");
        let mut told = (None, false);
        while told != (Some(1234), true) {
            match next(&mut events, "the last states").await {
                LinkEvent::Changed(link) if link.name == "g1" => told.0 = Some(link.mtu),
                LinkEvent::Removed { name, .. } if name == "c1" => told.1 = true,
                _ => {}
            }
        }
    });
}

async fn changed(events: &mut Receiver<LinkEvent>, what: &str, wanted: impl Fn(&Link) -> bool) -> Link {
    let event = wait(events, what, |event| matches!(event, LinkEvent::Changed(link) if wanted(link))).await;
    let LinkEvent::Changed(link) = event else { unreachable!("as asked") };
    link
}

async fn wait(
    events: &mut Receiver<LinkEvent>,
    what: &str,
    wanted: impl Fn(&LinkEvent) -> bool,
) -> LinkEvent {
    loop {
        let event = next(events, what).await;
        if wanted(&event) {
            return event;
        }
    }
}

async fn next(events: &mut Receiver<LinkEvent>, what: &str) -> LinkEvent {
    let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
    event.unwrap_or_else(|_| panic!("waited in vain: {what}")).expect("the watcher goes on")
}
