"""Which addresses an outgoing request may connect to: a name in somebody's settings must not lead into our network."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from shared.http_connection import addresses_of

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Azure's own service address inside every virtual network; it looks public and is not.
_PLATFORM = ipaddress.ip_address("168.63.129.16")
#: NAT64: the last 32 bits are an IPv4 address (RFC 6052).
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(OSError):
    """The name leads to an address that outgoing requests may not reach."""


class PublicAddresses:
    """Lets through what is on the public internet, and the `also` networks."""

    def __init__(self, also: Sequence[Network] = ()) -> None:
        self._also = tuple(also)

    def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host, each checked; connect to these, not to the name, which may resolve anew.

        Raises AddressRefused when one of them is refused, and socket.gaierror when there is no such host.
        """
        texts = addresses_of(host, port)
        for text in texts:
            if not self.allows(ipaddress.ip_address(text.partition("%")[0])):
                raise AddressRefused(f"{host} leads to an address that is not on the public internet")
        return texts

    def allows(self, address: Address) -> bool:
        """Whether a connection to this address may be made."""
        inner = _inner(address)
        if any(inner.version == network.version and inner in network for network in self._also):
            return True
        is_site_local = isinstance(inner, ipaddress.IPv6Address) and inner.is_site_local
        is_odd = inner.is_multicast or inner.is_reserved or is_site_local or inner == _PLATFORM
        return inner.is_global and not is_odd


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
