"""Whatever happens, in whatever order: after a round that completes, the table shows what Graph has."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.graph import contacts
from tests.integration.graph.conftest import DISPATCH
from tests.integration.sync.conftest import Bench

STEPS = (
    "add", "add", "change", "change", "delete", "move", "add folder", "delete folder", "sync", "sync", "killed sync",
    "killed sync", "full sync", "forget", "forget", "strange", "plain",
)  # fmt: skip
TABLES = ("contacts", "calendar_events", "files", "delta_links", "sync_items", "sync_history")


class Walk:
    """Changes at Graph and syncs here; `state` is what should be here, as name by id."""

    def __init__(self, bench: Bench, dice: random.Random) -> None:
        self.bench, self.dice = bench, dice
        self.folders: list[str] = []
        self.made = 0
        bench.graph.reset()
        bench.graph.set_automatic_delivery(False)
        bench.sql.execute(f"truncate {', '.join(f'queue.{table}' for table in TABLES)}".encode())

    def step(self, name: str) -> None:
        steps: dict[str, Callable[[], Any]] = {
            "add": self.add,
            "change": lambda: self.change(f"changed {self.made}"),
            "delete": self.delete,
            "move": self.move,
            "add folder": self.add_folder,
            "delete folder": self.delete_folder,
            "sync": self.sync,
            "killed sync": self.killed_sync,
            "full sync": lambda: self.sync(full=True),
            "forget": lambda: self.bench.graph.expire_deltas(
                status=self.dice.choice([400, 410]), code=self.dice.choice(["SyncStateNotFound", "resyncRequired"])
            ),
            "strange": lambda: self.bench.graph.behave(
                repeats=True, empty_pages=self.dice.randrange(3), unknown_tombstones=self.dice.randrange(3)
            ),
            "plain": lambda: self.bench.graph.behave(),
        }
        steps[name]()

    def sync(self, full: bool = False) -> None:
        self.bench.sql.execute("update queue.delta_links set resynced_at = null")
        run = self.bench.sync(self.kind, full=full)
        assert run.result is not None, run

    def killed_sync(self) -> None:
        database, when = self.bench.database, self.dice.choice(["before", "after"])
        database.number = self.bench.session.number = 0
        if self.dice.random() < 0.5:
            database.kill_at = (self.dice.randrange(1, 12), when)  # type: ignore[assignment]
        else:
            self.bench.session.kill_at = (self.dice.randrange(1, 6), when)  # type: ignore[assignment]
        self.sync()
        database.kill_at = self.bench.session.kill_at = None

    def check(self) -> None:
        self.bench.graph.behave()
        self.sync()
        assert self.here() == self.there()

    kind = "contacts"

    def there(self) -> dict[str, tuple[str, str]]:
        items = self.bench.graph.control("GET", f"contacts/{DISPATCH}")
        return {item["id"]: (item["displayName"], item["parentFolderId"]) for item in items}

    def here(self) -> dict[str, tuple[str, str]]:
        rows = self.bench.rows("select * from queue.contacts where deleted_at is null")
        return {row["external_id"]: (row["display_name"], row["folder_id"]) for row in rows}

    def some(self) -> str | None:
        ids = sorted(self.there())
        return self.dice.choice(ids) if ids else None

    def add(self) -> None:
        self.made += 1
        folder = self.dice.choice([*self.folders, "default"])
        self.bench.graph.put_contact(DISPATCH, displayName=f"c{self.made}", parentFolderId=folder)

    def change(self, name: str) -> None:
        self.made += 1
        if chosen := self.some():
            self.bench.graph.put_contact(DISPATCH, id=chosen, displayName=name)

    def move(self) -> None:
        if chosen := self.some():
            self.bench.graph.put_contact(
                DISPATCH, id=chosen, parentFolderId=self.dice.choice([*self.folders, "default"])
            )

    def delete(self) -> None:
        if chosen := self.some():
            self.bench.graph.control("POST", "contacts/delete", {"user": DISPATCH, "id": chosen})

    def add_folder(self) -> None:
        made = self.bench.graph.control("POST", "contact-folders", {"user": DISPATCH, "name": f"f{self.made}"})
        self.folders.append(made["id"])

    def delete_folder(self) -> None:
        if self.folders:
            gone = self.folders.pop(self.dice.randrange(len(self.folders)))
            self.bench.graph.control("POST", "contact-folders/delete", {"user": DISPATCH, "id": gone})


class FileWalk(Walk):
    kind = "files"

    def there(self) -> dict[str, tuple[str, str]]:
        items = self.bench.graph.control("GET", f"drive-items/{DISPATCH}")
        return {item["id"]: (item["name"], item["parentReference"].get("id", "")) for item in items}

    def here(self) -> dict[str, tuple[str, str]]:
        rows = self.bench.rows("select * from queue.files where deleted_at is null")
        return {row["external_id"]: (row["name"], row["parent_id"] or "") for row in rows}

    def some(self) -> str | None:
        ids = sorted(key for key, (name, _) in self.there().items() if name != "root" and key not in self.folders)
        return self.dice.choice(ids) if ids else None

    def place(self) -> dict[str, str]:
        return {"parent": self.dice.choice(self.folders)} if self.folders and self.dice.random() < 0.6 else {}

    def add(self) -> None:
        self.made += 1
        self.bench.graph.put_drive_item(DISPATCH, name=f"f{self.made}", **self.place())

    def change(self, name: str) -> None:
        self.made += 1
        if chosen := self.some():
            self.bench.graph.put_drive_item(DISPATCH, id=chosen, name=name)

    def move(self) -> None:
        if (chosen := self.some()) and (place := self.place()):
            self.bench.graph.put_drive_item(DISPATCH, id=chosen, **place)

    def delete(self) -> None:
        if chosen := self.some():
            self.bench.graph.control("POST", "drive-items/delete", {"owner": DISPATCH, "id": chosen})

    def add_folder(self) -> None:
        self.made += 1
        self.folders.append(self.bench.graph.put_drive_item(DISPATCH, name=f"d{self.made}", folder={}))

    def delete_folder(self) -> None:
        if self.folders:
            gone = self.folders.pop(self.dice.randrange(len(self.folders)))
            self.bench.graph.control("POST", "drive-items/delete", {"owner": DISPATCH, "id": gone})


@pytest.mark.parametrize("kind", [Walk, FileWalk])
def test_after_any_walk_the_table_is_what_graph_has(
    bench: Bench, kind: type[Walk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "_PREFER", (*contacts._PREFER[:1], "odata.maxpagesize=2"))

    @settings(
        max_examples=12, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(st.lists(st.sampled_from(STEPS), min_size=5, max_size=25), st.integers(0, 2**32))
    def walk(steps: list[str], seed: int) -> None:
        way = kind(bench, random.Random(seed))
        for step in steps:
            way.step(step)
        way.check()

    walk()
