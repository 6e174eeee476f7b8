"""The seal on stored token caches."""

from __future__ import annotations

import pytest

from shared.graph.token_cache import CacheCipher
from shared.sealing import CannotOpenError, KeyRing, Sealed, key_id

OLD, NEW = b"o" * 32, b"n" * 32


def test_it_opens_for_its_account_only() -> None:
    sealed = CacheCipher(KeyRing(NEW)).seal("a@x.example", b"tokens")
    assert b"tokens" not in sealed.ciphertext
    assert CacheCipher(KeyRing(NEW)).open("A@x.example", sealed) == b"tokens"
    with pytest.raises(CannotOpenError):
        CacheCipher(KeyRing(NEW)).open("b@x.example", sealed)


def test_an_earlier_key_still_opens_during_a_rotation() -> None:
    sealed = CacheCipher(KeyRing(OLD)).seal("a", b"tokens")
    assert sealed.key_id == key_id(OLD)
    assert CacheCipher(KeyRing(NEW, OLD)).open("a", sealed) == b"tokens"
    with pytest.raises(CannotOpenError, match="not among"):
        CacheCipher(KeyRing(NEW)).open("a", sealed)


@pytest.mark.parametrize("ciphertext", [b"", b"short", b"x" * 60])
def test_a_changed_cache_does_not_open(ciphertext: bytes) -> None:
    with pytest.raises(CannotOpenError):
        CacheCipher(KeyRing(NEW)).open("a", Sealed(key_id(NEW), ciphertext))


def test_a_key_must_have_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        CacheCipher(KeyRing(b"short"))
