"""Where outgoing requests may connect to."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from shared.outgoing.addresses import AddressRefused, PublicAddresses

INSIDE = [
    "127.0.0.1", "10.0.0.5", "172.16.9.9", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "168.63.129.16", "::1", "::", "fe80::1", "fec0::1", "fc00::5", "ff02::1",
    "::ffff:10.0.0.5", "::ffff:169.254.169.254", "64:ff9b::a00:5", "64:ff9b::7f00:1", "2002:a00:5::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffa",  # Teredo of 10.0.0.5
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_is_refused(address: str) -> None:
    assert not PublicAddresses().allows(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "20.190.128.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert PublicAddresses().allows(ipaddress.ip_address(address))


def test_a_network_of_the_settings_is_allowed_and_no_other() -> None:
    addresses = PublicAddresses([ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fc00:1::/32")])
    assert addresses.allows(ipaddress.ip_address("10.1.255.1"))
    assert addresses.allows(ipaddress.ip_address("::ffff:10.1.0.9"))
    assert addresses.allows(ipaddress.ip_address("fc00:1::9"))
    assert not addresses.allows(ipaddress.ip_address("10.2.0.1"))


def test_one_inner_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        kinds = ("8.8.8.8", "10.0.0.5")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in kinds]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(AddressRefused, match=r"evil\.example"):
        PublicAddresses().resolve("evil.example", 443)


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "127.1", "localhost"])
def test_other_spellings_of_loopback_are_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        PublicAddresses().resolve(host, 443)
