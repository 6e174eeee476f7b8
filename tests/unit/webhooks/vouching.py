"""Certificates, keys and tokens for notifications with resource data, without a server."""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

from local.certificate import self_signed
from local.fake_graph.rich import Publisher, encrypt
from local.fake_graph.state import CLIENT, TENANT
from shared.graph.rich import EncryptionCertificate, EncryptionCertificates, read_certificate
from shared.graph.validation_tokens import ValidationTokens
from shared.handlers.rich_contents import RichContents


def no_tokens() -> NoReturn:
    """For batches that nobody has to vouch for."""
    raise AssertionError("nothing here has to be checked")


def no_rich() -> RichContents:
    """What opens no resource data, and is not asked to."""
    return RichContents(no_tokens, EncryptionCertificates())


@cache
def certificate(name: str) -> EncryptionCertificate:
    return read_certificate(self_signed(name))


@cache
def publisher() -> Publisher:
    return Publisher(TENANT, CLIENT)


def encrypted(resource: dict[str, Any], name: str = "current") -> dict[str, Any]:
    """`encryptedContent` for the certificate of this name."""
    public = certificate(name).public
    return encrypt(public.base64, public.id, resource)


class Vouched:
    """Stands for ValidationTokens: says of each check what it is told to; None is good."""

    def __init__(self, verdict: Exception | None = None) -> None:
        self.verdict = verdict
        self.checked: list[list[str]] = []

    def check(self, tokens: Any, received_at: Any) -> None:
        self.checked.append(list(tokens))
        if self.verdict is not None:
            raise self.verdict


def rich(vouched: Vouched, *names: str) -> RichContents:
    tokens: Any = vouched
    found: ValidationTokens = tokens
    return RichContents(lambda: found, EncryptionCertificates(*(certificate(name) for name in names)))
