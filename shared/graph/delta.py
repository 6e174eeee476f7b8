"""Delta queries: the pages of what has changed, and the links to go on with. Knows no tables and no jobs.

Links are Graph's and opaque: each is followed whole, on Graph's host only, with the preferences of the first request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared.graph.client import GraphClient, items
from shared.graph.errors import AnswerLost, GraphError, GraphFailure, LinkRefused

#: The link no longer works, and the set must be read from the beginning. Outlook says it with a 400 too.
RESYNC_CODES = frozenset(
    {
        "syncstatenotfound",
        "syncstateinvalid",
        "resyncrequired",
        "resyncchangesapplydifferences",
        "resyncchangesuploaddifferences",
    }
)


@dataclass(frozen=True, slots=True)
class DeltaQuery:
    """The first request of a set: what `template` and `segments` name, with `query`; `prefer` goes with every page."""

    template: str
    segments: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    prefer: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DeltaPage:
    """One page. `changes` are items and tombstones in Graph's order; the last state of an id is the one that counts.

    At most one of the links is set; none is the end of a list that has no delta.
    """

    changes: Sequence[Change]
    next_link: str | None
    delta_link: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """An item as Graph shows it, perhaps in part; `removed`: it is no longer in its set, and `item` has no more
    than its id."""

    id: str
    item: Mapping[str, Any]
    removed: bool = False


class ResyncRequired(GraphFailure):
    """Graph has forgotten the state behind the link: the set is read anew, from `link` where Graph names one."""

    def __init__(self, error: GraphError, link: str | None) -> None:
        super().__init__(f"Graph wants a full sync: {error}", call=error.call)
        self.link = link


class LedBack(LinkRefused):
    """A nextLink leads to the page that it stands on: the link behind that page will never lead on."""


class DeltaClient:
    """Reads sets page by page as the application. Methods raise GraphFailure, above all ResyncRequired."""

    def __init__(self, graph: GraphClient) -> None:
        self._graph = graph

    def page(self, query: DeltaQuery, link: str | None = None) -> DeltaPage:
        """The page behind the link, or the first one. Raises LedBack where it leads back to itself."""
        try:
            body = self._first(query) if link is None else self._follow(query, link)
        except GraphError as error:
            # A link that Graph made and refuses now will not be good again: 400, where it gives no reason of its own.
            if is_resync(error) or (link is not None and error.status == 400):
                raise ResyncRequired(error, self._trusted(error.location)) from error
            raise
        page = read_page(body)
        if link is not None and page.next_link == link:
            raise LedBack(f"the nextLink of {query.template} leads back to its own page")
        self._check(page)
        return page

    def get(self, query: DeltaQuery) -> dict[str, Any]:
        """One object that a set needs to be found by."""
        return self._first(query)

    def _first(self, query: DeltaQuery) -> dict[str, Any]:
        return self._graph.call(
            "GET", query.template, expect=200, query=query.query, body=None, prefer=query.prefer, **query.segments
        )

    def _follow(self, query: DeltaQuery, link: str) -> dict[str, Any]:
        return self._graph.follow(link, query.template, prefer=query.prefer)

    def _check(self, page: DeltaPage) -> None:
        """A link is judged before it is stored, so that one that leads elsewhere never takes a good one's place."""
        for link in (page.next_link, page.delta_link):
            if link is not None:
                self._graph.guard(link)

    def _trusted(self, link: str | None) -> str | None:
        if link is None:
            return None
        try:
            self._graph.guard(link)
        except LinkRefused:
            return None
        return link


def is_resync(error: GraphError) -> bool:
    """Whether an answer says that the set must be read anew."""
    codes = {code.lower() for code in error.codes}
    return error.status == 410 or (400 <= error.status < 500 and not codes.isdisjoint(RESYNC_CODES))


def read_page(body: Mapping[str, Any]) -> DeltaPage:
    """A page from Graph's JSON. Raises AnswerLost when it is none: to take it for an empty one would lose changes."""
    if not isinstance(body.get("value"), list):
        raise AnswerLost("Graph's answer is no page of a list")
    links = {name: body.get(f"@odata.{name}") for name in ("nextLink", "deltaLink")}
    for name, link in links.items():
        if link is not None and not (isinstance(link, str) and link):
            raise AnswerLost(f"the {name} of Graph's answer is no text")
    if links["nextLink"] and links["deltaLink"]:
        raise AnswerLost("Graph's answer has both a nextLink and a deltaLink")
    return DeltaPage([_change(item) for item in items(body)], links["nextLink"], links["deltaLink"])


def _change(item: Mapping[str, Any]) -> Change:
    item_id = item.get("id")
    if not isinstance(item_id, str) or not item_id:
        raise AnswerLost("Graph's answer has an item without an id")
    return Change(item_id, item, "@removed" in item or item.get("deleted") is not None)
