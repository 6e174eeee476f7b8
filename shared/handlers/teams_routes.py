"""Who sends a Teams message: by the setting TEAMS_SENDERS for its target, or as the payload itself asks.

Light on purpose: the settings read it, and nothing here loads a client.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

Sender = Literal["account", "bot", "workflow", "activity"]
SENDERS: tuple[Sender, ...] = ("account", "bot", "workflow", "activity")
#: Those that a name may follow: which account, which workflow.
_NAMED = ("account", "workflow")


@dataclass(frozen=True, slots=True)
class Route:
    """A sender; `name` is the user name of an account (None: the first one), or the name of a workflow."""

    sender: Sender
    name: str | None = None


ACCOUNT = Route("account")


@dataclass(frozen=True, slots=True)
class Routes:
    """What is set up for sending. `rules`: patterns of targets, the first that fits decides; none: the account.

    `workflows` and `accounts` are the names there are (None: not known here). `resend_lost`: whether a workflow is
    started again when the answer to the first start was lost.
    """

    rules: tuple[tuple[str, Route], ...] = ()
    workflows: frozenset[str] | None = None
    accounts: tuple[str, ...] | None = None
    resend_lost: bool = False

    def of(self, target: str) -> Route:
        """The route to a chat (its id), or to a channel (team id/channel id)."""
        wanted = target.lower()
        return next((route for pattern, route in self.rules if fnmatchcase(wanted, pattern.lower())), ACCOUNT)


def parse_rules(text: str) -> tuple[tuple[str, Route], ...]:
    """Rules of a JSON object {pattern: sender}, in its order. Raises ValueError saying what is wrong."""
    try:
        # As pairs: an object would forget the first of two equal patterns.
        pairs: Any = json.loads(text, object_pairs_hook=tuple)
    except ValueError:
        raise ValueError('it is not JSON; it looks like {"19:alerts@*": "bot", "*": "account"}') from None
    if not isinstance(pairs, tuple):
        raise ValueError('it must be a JSON object of patterns and senders, like {"19:alerts@*": "bot"}')
    patterns = [pattern for pattern, _ in pairs]
    if len(set(patterns)) != len(patterns):
        raise ValueError("it has the same pattern twice")
    return tuple((pattern, _route(pattern, value)) for pattern, value in pairs)


def _route(pattern: str, value: Any) -> Route:
    sender, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    if sender not in SENDERS or (name and sender not in _NAMED) or (sender == "workflow" and not name):
        raise ValueError(
            f'"{pattern[:80]}" has no sender: give account, account:<user name>, bot, workflow:<name> or activity'
        )
    return Route(sender, name or None)


def missing_workflows(rules: Sequence[tuple[str, Route]], known: Sequence[str]) -> list[str]:
    """Names of workflows that rules use and nobody has set up."""
    return sorted({route.name or "" for _, route in rules if route.sender == "workflow"} - set(known))
