"""Filters for addresses and networks of IPv4 and IPv6."""

import ipaddress


def network(text):
    """The network that this text names, or nothing: an address is a network of one."""
    try:
        return ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        return None


def not_addresses(texts):
    """Those of these texts that are neither an address nor a network: names of hosts are none."""
    return [text for text in texts if network(text) is None]


def in_networks(address, networks):
    """Whether this address is in one of these networks."""
    own = network(address)
    others = [other for other in map(network, networks) if other is not None]
    return own is not None and any(own.version == other.version and own.subnet_of(other) for other in others)


def too_wide(texts, v4_bits=8, v6_bits=16):
    """Those of these networks that are wider than so many bits: the whole Internet is nobody's operator."""
    found = [(text, network(text)) for text in texts]
    return [text for text, own in found if own is not None and own.prefixlen < (v4_bits if own.version == 4 else v6_bits)]


class FilterModule:
    """What Ansible asks for."""

    def filters(self):
        return {"not_addresses": not_addresses, "in_networks": in_networks, "too_wide": too_wide}
