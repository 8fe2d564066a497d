"""Determine a client's network address, and which addresses share one allowance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

UNKNOWN = "unknown"  # requests without an address are counted together
_OWN_NETWORK = 64  # prefix bits of an IPv6 address; customers choose the rest freely


@dataclass(frozen=True)
class Visitor:
    """A browser session and its network address."""

    session: str | None
    address: str | None = None


def visitor(request: gr.Request | None) -> Visitor:
    """Return the sender of a request. On a public page `Guard` has set its address."""
    sender = getattr(request, "client", None)
    return Visitor(getattr(request, "session_hash", None), getattr(sender, "host", None))


def client(peer: str | None, forwarded: Iterable[str], proxied: bool) -> str:
    """Return the address of the client. `peer` is the other end of the connection.

    Behind a proxy (`proxied`) that is the proxy, which appends the address it saw to
    X-Forwarded-For; earlier entries may be forged. Proxies within a data centre append private
    addresses, so the last public one counts.
    """
    if proxied:
        hops = [hop for line in forwarded for hop in line.split(",")]
        seen = [address for hop in reversed(hops) if (address := _parse(hop))]
        if seen:
            return str(next((address for address in seen if address.is_global), seen[0]))
    return str(_parse(peer or "") or UNKNOWN)


def party(address: str | None) -> str:
    """Return the key that an address is counted under: for IPv6 its /64 network."""
    parsed = _parse(address or "")
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, _OWN_NETWORK), strict=False))
    return str(parsed or UNKNOWN)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address that may have a port or a zone; None if it isn't one."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
