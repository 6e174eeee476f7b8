"""clientState: ours are known without a table, everything else is forged, and nothing raises."""

from __future__ import annotations

from typing import Any

import pytest

from shared.graph.notifications import LONGEST_CLIENT_STATE, ClientStates, WeakSecretError

NEW, OLD, OTHER = b"n" * 32, b"o" * 32, b"x" * 32


def test_a_state_that_we_made_is_ours() -> None:
    states = ClientStates(NEW)
    assert states.is_ours(states.new())


def test_states_are_different_and_fit_into_graphs_limit() -> None:
    states = ClientStates(NEW)
    made = {states.new() for _ in range(100)}
    assert len(made) == 100
    assert max(map(len, made)) <= LONGEST_CLIENT_STATE


def test_during_a_rotation_both_secrets_are_good_and_new_states_have_the_new_one() -> None:
    rotating = ClientStates(NEW, OLD)
    assert rotating.is_ours(ClientStates(OLD).new())
    assert ClientStates(NEW).is_ours(rotating.new())
    assert not ClientStates(OLD).is_ours(rotating.new())


@pytest.mark.parametrize(
    "state",
    [None, "", 5, [], {}, True, "é", "\ud83d", ".", "a.", ".a", "nonce", "nonce.mac", "n.\x00", "a.b.c", "x" * 129],
    ids=repr,
)
def test_whatever_else_comes_is_not_ours_and_never_an_error(state: Any) -> None:
    assert not ClientStates(NEW, OLD).is_ours(state)


def test_a_state_with_one_character_changed_or_added_is_not_ours() -> None:
    states = ClientStates(NEW)
    state = states.new()
    for index in range(len(state)):
        other = "A" if state[index] != "A" else "B"
        assert not states.is_ours(state[:index] + other + state[index + 1 :])
    assert not states.is_ours(state + "A")
    assert not states.is_ours(ClientStates(OTHER).new())


@pytest.mark.parametrize("keys", [(), (b"",), (b"short",), (b"x" * 31,), (NEW, b"short")])
def test_a_missing_or_short_secret_is_refused_and_never_opens(keys: tuple[bytes, ...]) -> None:
    with pytest.raises(WeakSecretError):
        ClientStates(*keys)
