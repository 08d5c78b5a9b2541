#!/usr/bin/env python3
"""Frames that no everyday tool sends: damaged ones, tagged ones, magic packets, queries. Called by make-captures."""

import socket
import struct
import sys
import time

CLIENT, GUEST, TAGGED, EVERYONE = (
    bytes.fromhex(mac) for mac in ("020000000099", "525400000011", "525400000017", "ffffffffffff")
)
CLIENT4, GUEST4, TAGGED4 = (socket.inet_aton(a) for a in ("192.0.2.99", "192.0.2.11", "192.0.2.17"))
CLIENT6, GUEST6 = (socket.inet_pton(socket.AF_INET6, a) for a in ("2001:db8::99", "2001:db8::11"))
SOLICITED6 = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:11")


def total(data):
    data += b"\0" * (len(data) % 2)
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return ~value & 0xFFFF


def ethernet(dst, kind, payload, tags=b""):
    return (dst + CLIENT + tags + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def arp(target=GUEST4, hardware=1, lengths=(6, 4), opcode=1, sha=CLIENT):
    return struct.pack("!HHBBH", hardware, 0x0800, *lengths, opcode) + sha + CLIENT4 + bytes(6) + target


def ipv4(protocol, payload, dst=GUEST4, src=CLIENT4):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, src, dst)
    return head[:10] + struct.pack("!H", total(head)) + head[12:] + payload


def udp(src_port, dst_port, data, dst=GUEST4):
    length = 8 + len(data)
    pseudo = CLIENT4 + dst + struct.pack("!HH", 17, length)
    head = struct.pack("!HHH", src_port, dst_port, length)
    return head + struct.pack("!H", total(pseudo + head + b"\0\0" + data)) + data


def echo(sequence, data=b"abcdefgh"):
    head, rest = b"\x08\0", struct.pack("!HH", 0x1234, sequence) + data
    return head + struct.pack("!H", total(head + b"\0\0" + rest)) + rest


def solicitation(options, hop_limit=255, code=0, src=CLIENT6, mac=bytes.fromhex("3333ff000011"), dst=SOLICITED6):
    body = bytes(4) + GUEST6 + options
    pseudo = src + dst + struct.pack("!II", 4 + len(body), 58)
    icmp = struct.pack("!BB", 135, code)
    icmp += struct.pack("!H", total(pseudo + icmp + b"\0\0" + body)) + body
    head = struct.pack("!IHBB", 0x60000000, len(icmp), 58, hop_limit)
    return ethernet(mac, 0x86DD, head + src + dst + icmp)


def arp_damaged():
    good = ethernet(EVERYONE, 0x0806, arp())
    yield good
    yield good[:30]  # ends inside the sender's address
    yield ethernet(EVERYONE, 0x0806, arp(hardware=6))  # another kind of hardware
    yield ethernet(EVERYONE, 0x0806, arp(lengths=(255, 255)))  # lengths beyond the frame
    yield ethernet(GUEST, 0x0806, arp(lengths=(6, 16)))
    yield ethernet(GUEST, 0x0806, arp(sha=GUEST))  # claims to be the guest
    yield ethernet(EVERYONE, 0x8035, arp(opcode=3))  # RARP


def nd_damaged():
    link_layer = b"\x01\x01" + CLIENT
    yield solicitation(link_layer)
    yield solicitation(b"\x01\x00" + CLIENT)  # an option of no length
    yield solicitation(b"\x01\x05" + CLIENT)  # an option longer than the message
    yield solicitation(link_layer, hop_limit=64)  # through a router
    yield solicitation(link_layer, code=1)
    yield solicitation(link_layer, src=bytes(16))  # DAD with a source link-layer option
    broken = bytearray(solicitation(link_layer))
    broken[-1] ^= 1  # checksum
    yield bytes(broken)


def nd_probe():
    for options in (b"\x01\x01" + CLIENT, b""):
        yield solicitation(options, mac=GUEST, dst=GUEST6)


def udp_loop():
    for port in (7, 13, 19, 40007):
        yield ethernet(GUEST, 0x0800, ipv4(17, udp(port, 7, b"ping-pong")))


def magic():
    packet = b"\xff" * 6 + GUEST * 16
    everyone4 = socket.inet_aton("192.0.2.255")
    yield ethernet(EVERYONE, 0x0842, packet)
    yield ethernet(EVERYONE, 0x0800, ipv4(17, udp(40000, 9, packet, everyone4), everyone4))
    yield ethernet(EVERYONE, 0x0842, b"\xff" * 6 + CLIENT * 16)  # calls another machine


def noise():
    groups = {5353: "224.0.0.251", 1900: "239.255.255.250", 137: "192.0.2.255", 67: "255.255.255.255"}
    for port, group in groups.items():
        dst = socket.inet_aton(group)
        mac = b"\x01\x00\x5e" + bytes([dst[1] & 0x7F]) + dst[2:] if group.startswith("2") else EVERYONE
        mac = EVERYONE if group.endswith("255") else mac
        yield ethernet(mac, 0x0800, ipv4(17, udp(port, port, b"noise", dst), dst))


def vlan():
    # VLAN 7, the same with priority 3, untagged, VLAN 8
    for tags in (b"\x81\0\0\x07", b"\x81\0\x60\x07", b"", b"\x81\0\0\x08"):
        yield ethernet(EVERYONE, 0x0806, arp(TAGGED4), tags)
        yield ethernet(TAGGED, 0x0800, ipv4(1, echo(1), TAGGED4), tags)


def ipv6(next_header, payload, src, dst, hop_limit):
    return struct.pack("!IHBB", 0x60000000, len(payload), next_header, hop_limit) + src + dst + payload


def queries():
    # General queries of a querier: IGMPv2 and MLDv1, an answer within a second.
    everyone4, all_nodes = socket.inet_aton("224.0.0.1"), socket.inet_pton(socket.AF_INET6, "ff02::1")
    igmp = b"\x11\x0a" + struct.pack("!H", total(b"\x11\x0a\0\0" + bytes(4))) + bytes(4)
    yield ethernet(b"\x01\0\x5e\0\0\x01", 0x0800, ipv4(2, igmp, everyone4))
    querier = socket.inet_pton(socket.AF_INET6, "fe80::99")
    body = struct.pack("!HH", 1000, 0) + bytes(16)
    pseudo = querier + all_nodes + struct.pack("!II", 4 + len(body), 58)
    mld = b"\x82\0" + struct.pack("!H", total(pseudo + b"\x82\0\0\0" + body)) + body
    router_alert = b"\x3a\0\x05\x02\0\0\x01\0"
    yield ethernet(bytes.fromhex("333300000001"), 0x86DD, ipv6(0, router_alert + mld, querier, all_nodes, 1))
    yield 1.2  # until it is answered


def keep_alive():
    # Of a connection that nobody knows: the same bare acknowledgement, a good second apart.
    head = struct.pack("!HHIIBBH", 40000, 80, 1000, 2000, 0x50, 0x10, 500)
    pseudo = CLIENT4 + GUEST4 + struct.pack("!HH", 6, 20)
    segment = head + struct.pack("!HH", total(pseudo + head + bytes(4)), 0)
    for _ in range(3):
        yield ethernet(GUEST, 0x0800, ipv4(6, segment))
        yield 1.1


def main():
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    link.bind(("eth0", 0))
    for frame in globals()[sys.argv[1]]():
        if isinstance(frame, float):
            time.sleep(frame)
            continue
        link.send(frame)
        time.sleep(0.02)


main()
