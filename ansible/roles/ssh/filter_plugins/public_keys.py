"""A filter for public keys of SSH, as lines of a .pub file (RFC 4253, section 6.6; RFC 5656, section 3.1; RFC 8709, section 4)."""

import base64
import binascii
import struct

RSA_MIN_BITS = 3072  # RequiredRSASize of sshd.conf.j2
KINDS = {
    "ssh-ed25519": [32],
    "sk-ssh-ed25519@openssh.com": [32, None],
    "ecdsa-sha2-nistp256": [8, 65],
    "ssh-rsa": [None, None],
}


def fields(blob):
    """The fields of a key, each with its length in four bytes before it."""
    found = []
    while blob:
        (length,) = struct.unpack(">I", blob[:4])
        if len(blob) < 4 + length:
            raise ValueError("cut off")
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return found


def wrong_with(line):
    """What keeps sshd from letting anybody in by this line, or nothing."""
    words = str(line).split(maxsplit=2)
    if not isinstance(line, str) or "\n" in line.strip() or len(words) < 2 or words[0] not in KINDS:
        return "is no line of a .pub file of the kind " + ", ".join(KINDS)
    try:
        kind, *own = fields(base64.b64decode(words[1], validate=True))
    except (binascii.Error, struct.error, ValueError):
        return "is cut off, or an example"
    lengths = KINDS[words[0]]
    if kind != words[0].encode() or len(own) != len(lengths) or any(n not in (None, len(f)) for n, f in zip(lengths, own)):
        return "is no key of the kind that it names"
    if words[0] == "ssh-rsa" and int.from_bytes(own[1], "big").bit_length() < RSA_MIN_BITS:
        return f"has {int.from_bytes(own[1], 'big').bit_length()} bits, and sshd takes RSA of {RSA_MIN_BITS} or more"
    return ""


def wrong_keys(lines):
    """A sentence for each of these lines by which nobody would come in."""
    if isinstance(lines, str) or not isinstance(lines, (list, tuple)):
        return [f"{str(lines)[:40]} is no list: write its lines in brackets"]
    found = [(str(line)[:40], wrong_with(line)) for line in lines]
    return [f"{line}... {wrong}" for line, wrong in found if wrong]


class FilterModule:
    """What Ansible asks for."""

    def filters(self):
        return {"wrong_keys": wrong_keys}
