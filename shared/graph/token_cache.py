"""Keeps the delegated account's token cache: sealed, behind a port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from shared.sealing import KeyRing, Sealed


@dataclass(frozen=True, slots=True)
class StoredCache:
    """A sealed cache as stored; `version` rises with each save."""

    sealed: Sealed
    version: int


class TokenCacheStore(Protocol):
    """Where the sealed caches are kept, one for each account."""

    def load(self, account: str) -> StoredCache | None: ...

    def save(self, account: str, sealed: Sealed, expected_version: int | None) -> bool:
        """Store if the version is still the expected one (None: nothing stored yet); False when it is not."""
        ...


class CacheCipher:
    """Seals with the ring's current key; opens with it or with an earlier one. Raises CannotOpenError."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def seal(self, account: str, plaintext: bytes) -> Sealed:
        return self._ring.seal(_bound_to(account), plaintext)

    def open(self, account: str, sealed: Sealed) -> bytes:
        """The plaintext. Raises CannotOpenError."""
        return self._ring.open(_bound_to(account), sealed)

    def is_current(self, sealed: Sealed) -> bool:
        return sealed.key_id == self._ring.current


def _bound_to(account: str) -> bytes:
    return account.lower().encode()
