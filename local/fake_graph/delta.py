"""Delta queries on whatever the fake keeps: pages, tombstones, tokens that end, and what Graph has been seen to do.

A token remembers the version of each item when its round began. What differs when it comes back is the next round; so
nothing has to be written down while things change.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from local.fake_graph import query
from local.fake_graph.call import Answer, Call, GraphError, Json, bad_request

PAGE = 10
LARGEST_PAGE = 1000
#: The options that hold a token; nothing else may stand beside one.
TOKENS = ("$skiptoken", "$deltatoken", "token")


@dataclass(slots=True)
class Token:
    """Where a round stands: `versions` when it began, and `changes` (id, removed) still to be shown."""

    versions: dict[str, str]
    changes: list[tuple[str, bool]]
    options: dict[str, str]
    size: int
    is_full: bool
    last: Json | None = None
    empty_pages: int = 0


@dataclass(slots=True)
class Behaviour:
    """What the fake does that correct clients must bear. `loop`: "link" gives a nextLink that leads to its own page,
    "pages" the first page again and again; `host` takes the place of Graph's in nextLinks; `part` are the only
    properties that a changed item comes with."""

    repeats: bool = False
    empty_pages: int = 0
    unknown_tombstones: int = 0
    loop: str | None = None
    host: str | None = None
    part: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Expiry:
    """How a token that is no longer known is answered."""

    status: int = 410
    code: str = "SyncStateNotFound"


class Deltas:
    """The tokens that are out, and how the fake behaves."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.tokens: dict[str, Token] = {}
        self.behaviour = Behaviour()
        self.expiry = Expiry()

    def issue(self, token: Token) -> str:
        name = f"local-delta-{next(self._numbers)}"
        self.tokens[name] = token
        return name

    def expire(self, expiry: Expiry) -> int:
        """From now on no token that is out is known; how many there were."""
        self.expiry = expiry
        count = len(self.tokens)
        self.tokens.clear()
        return count


@dataclass(frozen=True, slots=True)
class DeltaSet:
    """What a delta call goes over: the version of each item, how one is shown, and how a tombstone."""

    versions: Mapping[str, str]
    show: Callable[[str], Json]
    context: str
    bury: Callable[[str], Json] = lambda item_id: {"id": item_id, "@removed": {"reason": "deleted"}}
    #: Drives call both kinds of token by one name.
    token_names: tuple[str, str] = ("$skiptoken", "$deltatoken")


def given_token(call: Call) -> str | None:
    """The token of a call that goes on; such a call has no other options."""
    found = [name for name in TOKENS if name in call.query]
    if not found:
        return None
    if len(call.query) > 1:
        raise bad_request("A link is followed as it is: no other query option may stand beside its token.")
    return call.query[found[0]]


def page(deltas: Deltas, call: Call, whole: DeltaSet, options: dict[str, str], size: int) -> Answer:
    """The next page of a round, or the first of a new one. `options` are kept in the token."""
    token = _token(deltas, call, whole, options, size)
    behaviour = deltas.behaviour
    body: Json = {"@odata.context": f"{call.base_url}/v1.0/$metadata#{whole.context}"}
    if token.empty_pages > 0:
        token.empty_pages -= 1
        shown: list[tuple[str, bool]] = []
        rest = token.changes
    else:
        shown, rest = token.changes[: token.size], token.changes[token.size :]
    items = [_item(whole, token, behaviour, *change) for change in shown]
    if behaviour.repeats and token.last is not None and shown:
        items.insert(0, token.last)
    following = Token(
        token.versions, rest, token.options, token.size, token.is_full, items[-1] if items else token.last,
        behaviour.empty_pages if shown else token.empty_pages,
    )  # fmt: skip
    if behaviour.loop == "pages":
        following.changes = token.changes
    if rest or following.empty_pages > 0 or behaviour.loop == "pages":
        name = deltas.issue(following)
        body["@odata.nextLink"] = _link(call, whole.token_names[0], name, behaviour.host)
        if behaviour.loop == "link" and given_token(call) is not None:
            body["@odata.nextLink"] = f"{call.base_url}{call.path}?{urlencode(call.query, quote_via=quote, safe='$')}"
    else:
        ended = Token(dict(token.versions), [], token.options, token.size, is_full=False)
        body["@odata.deltaLink"] = _link(call, whole.token_names[1], deltas.issue(ended), None)
    body["value"] = items
    return Answer(200, body)


def options_of(deltas: Deltas, call: Call) -> dict[str, str]:
    """The options of the round that the call belongs to; those of the call itself where it begins one."""
    name = given_token(call)
    if name is None or name == "latest":
        return dict(call.query)
    return _known(deltas, call, name).options


def page_size(call: Call) -> int:
    """As the Prefer header asks (odata.maxpagesize), or $top."""
    for preference in call.preferences():
        name, _, value = preference.partition("=")
        if name == "odata.maxpagesize":
            if not value.isdigit() or not 1 <= int(value) <= LARGEST_PAGE:
                raise bad_request(f"Invalid preference {preference}.")
            return int(value)
    return query.number(call, "$top", PAGE, 1, LARGEST_PAGE)


def _token(deltas: Deltas, call: Call, whole: DeltaSet, options: dict[str, str], size: int) -> Token:
    name = given_token(call)
    behaviour = deltas.behaviour
    if name == "latest":
        return Token(dict(whole.versions), [], options, size, is_full=False)
    if name is None:
        unknown = [(f"never-seen-{number}", True) for number in range(behaviour.unknown_tombstones)]
        changes = unknown + [(item_id, False) for item_id in whole.versions]
        return Token(dict(whole.versions), changes, options, size, True, None, behaviour.empty_pages)
    token = _known(deltas, call, name)
    if token.changes or token.empty_pages or token.last is not None:
        return Token(
            token.versions, list(token.changes), token.options, token.size, token.is_full, token.last, token.empty_pages
        )
    changed = [(item, False) for item, version in whole.versions.items() if token.versions.get(item) != version]
    removed = [(item, True) for item in token.versions if item not in whole.versions]
    return Token(
        dict(whole.versions), removed + changed, token.options, size, False, None,
        behaviour.empty_pages if removed or changed else 0,
    )  # fmt: skip


def _known(deltas: Deltas, call: Call, name: str) -> Token:
    token = deltas.tokens.get(name)
    if token is None:
        headers = {"Location": f"{call.base_url}{call.path}"} if deltas.expiry.status == 410 else {}
        raise GraphError(deltas.expiry.status, deltas.expiry.code, "The sync state is not known.", headers=headers)
    return token


def _item(whole: DeltaSet, token: Token, behaviour: Behaviour, item_id: str, removed: bool) -> Json:
    if removed or item_id not in whole.versions:
        return whole.bury(item_id)
    shown = whole.show(item_id)
    if behaviour.part and not token.is_full:
        return {name: value for name, value in shown.items() if name in ("id", "@odata.etag", *behaviour.part)}
    return shown


def _link(call: Call, option: str, token: str, host: str | None) -> str:
    return f"{host or call.base_url}{call.path}?{urlencode({option: token}, quote_via=quote, safe='$')}"
