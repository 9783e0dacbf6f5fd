"""Filters for addresses and networks of IPv4 and IPv6."""

import ipaddress

# ::ffff:192.0.2.1 is how programs write an IPv4 address among IPv6 ones (RFC 4291, section 2.5.5.2): no packet bears it.
MAPPED = ipaddress.ip_network("::ffff:0:0/96")


def network(text):
    """The network that this text names, or nothing: an address is a network of one."""
    try:
        return ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        return None


def is_mapped(own):
    """Whether this network is of IPv4 addresses that are written as IPv6."""
    return own.version == 6 and own.overlaps(MAPPED) and own.prefixlen >= 64


def wrong_with(text):
    """What keeps a rule for this address or network from meeting any packet of it, or nothing."""
    own = network(text)
    if own is None or "%" in str(text):
        return f"{text} is neither an address nor a network such as 192.0.2.10 or 2001:db8::/48; names of hosts are none"
    if is_mapped(own):
        v4 = own.network_address.ipv4_mapped
        bits = own.prefixlen - 96
        meant = "its IPv4 address" if v4 is None or bits < 0 else f"{v4}" if bits == 32 else f"{v4}/{bits}"
        return f"{text} is an IPv4 address written as IPv6, which no packet bears: write {meant}"
    return ""


def wrong_addresses(texts):
    """A sentence for each of these texts that is no address or network of packets."""
    if isinstance(texts, str) or not isinstance(texts, (list, tuple)):
        return [f"{texts} is no list: write it in brackets"]
    return [wrong for wrong in map(wrong_with, texts) if wrong]


def wrong_address(text):
    """What keeps this text from being the address of one machine, or nothing."""
    own = network(text)
    if own is None or "/" in str(text) or "%" in str(text):
        return f"{text} is no IP address"
    if wrong_with(text):
        return wrong_with(text)
    one = own.network_address
    if one.is_unspecified or one.is_loopback or one.is_multicast or one.is_link_local:
        return f"{text} reaches no other machine"
    return ""


def in_networks(address, networks):
    """Whether this address is in one of these networks."""
    own = network(address)
    others = [other for other in map(network, networks) if other is not None]
    return own is not None and any(own.version == other.version and own.subnet_of(other) for other in others)


def overlap(one, other):
    """Whether some address is in both of these networks."""
    own, theirs = network(one), network(other)
    return own is not None and theirs is not None and own.version == theirs.version and own.overlaps(theirs)


def shuts_out(isolated, operators, nodes, mine=""):
    """A sentence for each of these isolated networks that keeps out an operator, who runs this, or others than exactly one node."""
    found = []
    for text in isolated:
        met = [other for other in [*operators, *([mine] if network(mine) else [])] if overlap(text, other)]
        own = [node for node in nodes if overlap(text, node)]
        if met:
            found.append(f"{text} has operators in it ({', '.join(dict.fromkeys(met))}): you would lock yourself out")
        elif len(own) > 1 or own and network(text) != network(own[0]):
            found.append(f"{text} has {', '.join(own)} in it, of which each is a node's: one node is isolated by exactly its own address")
    return found


def too_wide(texts, v4_bits=8, v6_bits=16):
    """Those of these networks that are wider than so many bits: the whole Internet is nobody's operator."""
    found = [(text, network(text)) for text in texts]
    return [text for text, own in found if own is not None and own.prefixlen < (v4_bits if own.version == 4 else v6_bits)]


def from_outside(texts):
    """Those of these addresses at which another machine may reach this one, each once: neither loopback nor of one link."""
    found = [(text, network(text)) for text in dict.fromkeys(texts)]
    return [text for text, own in found if own is not None and not (own.is_loopback or own.is_link_local or own.is_unspecified)]


class FilterModule:
    """What Ansible asks for."""

    def filters(self):
        return {
            "from_outside": from_outside,
            "in_networks": in_networks,
            "shuts_out": shuts_out,
            "too_wide": too_wide,
            "wrong_address": wrong_address,
            "wrong_addresses": wrong_addresses,
        }
