"""Sends single packets: packets.py FROM TO tcp|udp FLAGS SOURCE_PORTS PORTS [reply]. Ports may be a range. With reply it prints the flags of what
comes back, within two seconds. IPv4; as root."""

import socket
import struct
import sys

FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16}


def ports(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(source, target, number, body, at):
    """The body with its checksum, which stands at this place."""
    ends = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack(">BBH", 0, number, len(body))
    return body[:at] + struct.pack(">H", checksum(ends + body)) + body[at + 2 :]


def main():
    source, target, kind, flags, sources, targets, *reply = sys.argv[1:]
    number = socket.IPPROTO_TCP if kind == "tcp" else socket.IPPROTO_UDP
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, number)
    raw.bind((source, 0))
    raw.settimeout(2)
    for own in ports(sources):
        for other in ports(targets):
            if kind == "tcp":
                bits = sum(FLAGS[flag] for flag in flags.split(","))
                body = packet(source, target, number, struct.pack(">HHIIBBHHH", own, other, 4711, 815, 5 << 4, bits, 1024, 0, 0), 16)
            else:
                body = packet(source, target, number, struct.pack(">HHHH", own, other, 12, 0) + b"late", 6)
            raw.sendto(body, (target, 0))
    while reply:
        try:
            said = raw.recv(4096)
        except TimeoutError:
            break
        header = (said[0] & 15) * 4
        bits = said[header + 13]
        print(",".join(flag for flag, bit in FLAGS.items() if bits & bit))
        break


main()
