"""The ring of keys: what opens what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.sealing import CannotOpenError, KeyRing, Sealed, UnknownKeyError, key_id

OLD, NEW = b"o" * 32, b"n" * 32


@given(st.binary(), st.binary(max_size=100), st.booleans())
def test_what_was_sealed_opens_and_only_in_its_place(plaintext: bytes, bound_to: bytes, own_key: bool) -> None:
    ring = KeyRing(NEW)
    sealed = ring.seal(bound_to, plaintext, own_key=own_key)
    assert ring.open(bound_to, sealed, own_key=own_key) == plaintext
    with pytest.raises(CannotOpenError):
        ring.open(bound_to + b"!", sealed, own_key=own_key)
    with pytest.raises(CannotOpenError):
        ring.open(bound_to, sealed, own_key=not own_key)


@given(st.integers(0, 8 * 36 - 1))
def test_a_flipped_bit_does_not_open(bit: int) -> None:
    ring = KeyRing(NEW)
    sealed = ring.seal(b"job", b"12345678")
    changed = bytearray(sealed.ciphertext)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CannotOpenError, match="changed"):
        ring.open(b"job", Sealed(sealed.key_id, bytes(changed)))


@pytest.mark.parametrize("length", range(13))
def test_a_piece_of_a_ciphertext_does_not_open(length: int) -> None:
    ring = KeyRing(NEW)
    with pytest.raises(CannotOpenError):
        ring.open(b"job", Sealed(ring.current, ring.seal(b"job", b"x").ciphertext[:length]))


def test_a_ring_opens_with_all_its_keys_and_seals_with_the_first() -> None:
    before, during, after = KeyRing(OLD), KeyRing(NEW, OLD), KeyRing(NEW)
    old = before.seal(b"a", b"text")
    assert during.open(b"a", old) == b"text"
    new = during.seal(b"a", b"text")
    assert new.key_id == key_id(NEW) == during.current and after.open(b"a", new) == b"text"
    for ring, sealed in ((after, old), (before, new)):
        with pytest.raises(UnknownKeyError, match="not among the settings") as raised:
            ring.open(b"a", sealed)
        assert raised.value.key_id == sealed.key_id not in ring


def test_a_key_first_added_as_previous_is_current_later() -> None:
    prepared, done = KeyRing(OLD, NEW), KeyRing(NEW, OLD)
    for one, other in ((prepared, done), (done, prepared)):
        assert other.open(b"a", one.seal(b"a", b"text")) == b"text"


def test_two_seals_of_the_same_text_differ() -> None:
    ring = KeyRing(NEW)
    assert len({ring.seal(b"a", b"text").ciphertext for _ in range(100)}) == 100


def test_a_key_has_32_bytes_and_its_name_gives_nothing_away() -> None:
    for keys in ((b"short",), (NEW, b"short")):
        with pytest.raises(ValueError, match="32 bytes"):
            KeyRing(*keys)
    assert len(key_id(NEW)) == 12 and key_id(NEW) != key_id(OLD)
