"""Follow what ends in a queue."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from local.q.client import Client, Json
from local.q.errors import CommandError, Exit
from local.q.output import moment, note, say, show_line
from local.q.session import AsJson, Queue, client_of

ENDS = ("completed", "dead", "cancelled")
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 5.0
#: A transaction that ended a job may become visible later than one that ended another after it.
OVERLAP = timedelta(seconds=10)
LONG_AGO = datetime.min.replace(tzinfo=UTC)
PAGE = 200
STYLES = {"dead": "red", "cancelled": "yellow"}


def tail(
    context: typer.Context,
    queue: Queue,
    failed: Annotated[bool, typer.Option("--failed", help="Only jobs that ended dead.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, max=PAGE, help="So many of the last ones first.")] = 10,
    count: Annotated[int | None, typer.Option("-c", "--count", min=1, help="End after so many new ones.")] = None,
    json: AsJson = False,
) -> None:
    """Show jobs of a queue as they end; Ctrl-C ends it. With --json, one object a line."""
    client = client_of(context)
    followed = [Followed(status) for status in (("dead",) if failed else ENDS)]
    show = show_line if json else _show
    before = sorted((one for follow in followed for one in follow.begin(client, queue)), key=_when)
    for one in before[max(0, len(before) - lines) :]:
        show(one)
    note(f"Following {queue}; Ctrl-C ends it.")
    left = count
    for one in _follow(client, queue, followed):
        show(one)
        left = left - 1 if left is not None else None
        if left == 0:
            return


@dataclass(slots=True)
class Followed:
    """Jobs of one state: up to which time they are known, and which of those around that time.

    What ended before `since` was there at the beginning.
    """

    status: str
    since: datetime = LONG_AGO
    known_until: datetime | None = None
    known: dict[str, datetime] = field(default_factory=dict)

    def begin(self, client: Client, queue: str) -> list[Json]:
        """The last ones; all that are there now are known from then on."""
        page = self._page(client, queue, None)
        items: list[Json] = page["items"]
        self._remember(items)
        if page["next"] is not None:
            self.since = _when(items[-1])
        return items

    def new(self, client: Client, queue: str) -> list[Json]:
        """Those that have ended since, newest first."""
        found: list[Json] = []
        cursor: str | None = None
        while True:
            page = self._page(client, queue, cursor)
            found += [one for one in page["items"] if self._is_new(one)]
            cursor = page["next"]
            if cursor is None or not self._may_be_new(_when(page["items"][-1])):
                break
        self._remember(found)
        return found

    def _page(self, client: Client, queue: str, cursor: str | None) -> Json:
        query = {"status": self.status, "cursor": cursor, "limit": PAGE}
        page: Json = client.call("listJobs", queue=queue, query=query)
        return page

    def _is_new(self, one: Json) -> bool:
        return one["id"] not in self.known and self._may_be_new(_when(one))

    def _may_be_new(self, at: datetime) -> bool:
        return at > self.since and (self.known_until is None or at > self.known_until - OVERLAP)

    def _remember(self, jobs: Sequence[Json]) -> None:
        self.known |= {one["id"]: _when(one) for one in jobs}
        if self.known:
            self.known_until = max(self.known.values())
            self.known = {one: at for one, at in self.known.items() if at > self.known_until - 2 * OVERLAP}


def _follow(client: Client, queue: str, followed: Sequence[Followed]) -> Iterator[Json]:
    """New ends, for ever; an app that is away is waited for, with a word at its beginning and its end."""
    wait, away = FIRST_WAIT_SECONDS, False
    while True:
        time.sleep(wait)
        found: list[Json] = []
        try:
            for follow in followed:
                found += follow.new(client, queue)
        except CommandError as error:
            if error.code is not Exit.UNAVAILABLE:
                raise
            if not away:
                note(f"{error} Waiting for it.")
            away = True
        else:
            if away:
                note("It is back.")
            away = False
        yield from sorted(found, key=_when)
        wait = FIRST_WAIT_SECONDS if found else min(wait * 1.5, LONGEST_WAIT_SECONDS)


def _when(one: Json) -> datetime:
    return datetime.fromisoformat(one["at"])


def _show(one: Json) -> None:
    why = f"  {one['errorClass']}: {one['errorMessage']}" if one["errorClass"] else ""
    say(f"{moment(one['at'])}  {one['id']}  {one['state']:<9}{why}", STYLES.get(one["state"], ""))
