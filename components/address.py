"""Where a request comes from, as far as that can't be made up, and who is counted as one there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

UNKNOWN = "unknown"  # whatever says no address is counted together
_OWN_NETWORK = 64  # bits of an IPv6 address; the rest a customer chooses at will


@dataclass(frozen=True)
class Visitor:
    """Who asks: a browser's session, and where it is."""

    session: str | None
    address: str | None = None


def client(peer: str | None, forwarded: Iterable[str], proxied: bool) -> str:
    """The address of whoever sent a request. `peer` is the other end of the connection. Behind a
    proxy (`proxied`) that is the proxy, which adds what it saw to the end of X-Forwarded-For; what
    stands before may be made up. Proxies within a data centre add private addresses."""
    if proxied:
        hops = [hop for line in forwarded for hop in line.split(",")]
        seen = [found for hop in reversed(hops) if (found := _parse(hop))]
        if seen:
            return str(next((found for found in seen if found.is_global), seen[0]))
    return str(_parse(peer or "") or UNKNOWN)


def party(address: str | None) -> str:
    """What an address is counted as: an IPv6 address is as good as all others of its network."""
    found = _parse(address or "")
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _OWN_NETWORK), strict=False))
    return str(found or UNKNOWN)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address that may have a port or a zone."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
