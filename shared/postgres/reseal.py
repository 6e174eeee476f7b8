"""Seals what is not sealed with the current key: after a change of keys, and where SQL has left payloads plain.

Safe beside a running system, and to stop anywhere: a page is looked at without a lock, a chunk of it is written by
one statement that passes over rows somebody holds, and whoever reads a row meanwhile can open both forms. Rows move
from table to table while they are walked, so passes follow one another until one finds nothing to do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from shared.engine.ids import new_id
from shared.engine.job import Unreadable
from shared.engine.json_text import to_json
from shared.graph.token_cache import CacheCipher
from shared.postgres.pool import Database
from shared.postgres.sealer import LARGEST_OPENED_BYTES, Sealer, of_job, of_schedule
from shared.postgres.token_cache import PostgresTokenCache
from shared.sealing import CannotOpenError

PAGE = 200
#: What one statement writes at most, in rows and in bytes as stored.
CHUNK_ROWS = 50
CHUNK_BYTES = 4 * 1024 * 1024
MOST_PASSES = 10
#: In the order of a job's life.
_JOBS: tuple[LiteralString, ...] = ("later", "waiting", "job", "job_tracking")
_FIRST = UUID(int=0)
_IS_STALE: LiteralString = (
    "case when payload ? '$sealed' then payload ->> 'key' is distinct from %(current)s else queue = any(%(queues)s) end"
)


@dataclass(slots=True)
class Report:
    """`sealed` were plain, `resealed` under another key; `busy` were held by somebody in the last pass; `left` says
    why others stay as they are, and how many."""

    sealed: int = 0
    resealed: int = 0
    busy: int = 0
    left: Counter[str] = field(default_factory=Counter)

    @property
    def is_done(self) -> bool:
        return not self.busy and not self.left


class Reseal:
    """One run. `say` hears of every table that had something to do."""

    def __init__(self, database: Database, sealer: Sealer, cipher: CacheCipher, say: Callable[[str], None]) -> None:
        self._database = database
        self._sealer = sealer
        self._cipher = cipher
        self._say = say
        self._stale = {"current": sealer.current_key, "queues": list(sealer.queues)}
        self._report = Report()

    def run(self) -> Report:
        """Raises StoreUnavailableError; what was done stays done."""
        report = self._report
        for _ in range(MOST_PASSES):
            report.busy, report.left = 0, Counter()
            before = report.sealed + report.resealed
            self._pass()
            if report.sealed + report.resealed == before and not report.busy:
                break
        return report

    def _pass(self) -> None:
        steps: list[tuple[str, Callable[[], None]]] = [
            ("scheduled_jobs", self._schedules),
            ("batch", self._callbacks),
            *((table, partial(self._jobs, table)) for table in _JOBS),
            ("token_cache", self._token_caches),
        ]
        report = self._report
        for name, step in steps:
            sealed, resealed = report.sealed, report.resealed
            step()
            if (sealed, resealed) != (report.sealed, report.resealed):
                self._say(f"{name}: {report.sealed - sealed} sealed, {report.resealed - resealed} sealed anew")

    def _jobs(self, table: LiteralString) -> None:
        for chunk in self._chunks(table):
            with self._database.connection() as conn:
                rows = conn.execute(
                    "select id, queue, coalesce(redrive_of, id), payload::text, payload ? '$sealed'"  # noqa: S608
                    f"  from queue.{table} where id = any(%s)",
                    (chunk,),
                ).fetchall()
            new: dict[UUID, str] = {}
            for job_id, queue, effect_id, text, _ in rows:
                payload = self._sealed_anew(of_job(queue, effect_id), text)
                if payload is not None:
                    new[job_id] = payload
            written = self._write(table, new)
            for job_id, _, _, _, was_sealed in rows:
                if job_id in written:
                    self._count(was_sealed)
            self._report.busy += len(new) - len(written)

    def _chunks(self, table: LiteralString) -> Iterator[list[UUID]]:
        """The ids of what is to be done, by pages of the primary key."""
        after = _FIRST
        while True:
            with self._database.connection() as conn:
                rows = conn.execute(
                    f"select id, {_IS_STALE}, pg_column_size(payload) from queue.{table}"  # noqa: S608 - constants
                    " where id > %(after)s order by id limit %(page)s",
                    {**self._stale, "after": after, "page": PAGE},
                ).fetchall()
            chunk: list[UUID] = []
            size = 0
            for job_id, is_stale, job_size in rows:
                if not is_stale:
                    continue
                if chunk and (len(chunk) >= CHUNK_ROWS or size + job_size > CHUNK_BYTES):
                    yield chunk
                    chunk, size = [], 0
                chunk.append(job_id)
                size += job_size
            if chunk:
                yield chunk
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def _write(self, table: LiteralString, new: dict[UUID, str]) -> set[UUID]:
        """Passes over rows that a claim or a settlement holds: a job that is on its way is found in the next pass."""
        if not new:
            return set()
        with self._database.connection() as conn:
            rows = conn.execute(
                f"with free as (select id from queue.{table} where id = any(%(ids)s)"  # noqa: S608 - constants
                "                order by id for update skip locked)"
                f" update queue.{table} t set payload = n.payload::jsonb"
                "   from free, unnest(%(ids)s::uuid[], %(payloads)s::text[]) n(id, payload)"
                "  where t.id = free.id and t.id = n.id returning t.id",
                {"ids": list(new), "payloads": list(new.values())},
            ).fetchall()
        return {row[0] for row in rows}

    def _schedules(self) -> None:
        with self._database.connection() as conn:
            rows = conn.execute(
                f"select name from queue.scheduled_jobs where {_IS_STALE}",  # noqa: S608 - constants
                self._stale,
            ).fetchall()
        for (name,) in rows:
            with self._database.transaction() as conn:
                row = _lock(
                    conn, "select payload::text, payload ? '$sealed' from queue.scheduled_jobs where name = %s", name
                )
                if row is None:
                    self._report.busy += 1
                    continue
                payload = self._sealed_anew(of_schedule(name), row[0])
                if payload is not None:
                    conn.execute("update queue.scheduled_jobs set payload = %s where name = %s", (payload, name))
                    self._count(row[1])

    def _callbacks(self) -> None:
        """Of batches that have not ended: a callback is the job to be, payload and all."""
        with self._database.connection() as conn:
            rows = conn.execute(
                "select b.id from queue.batch b, jsonb_to_record(b.callback) as c(queue text, payload jsonb)"  # noqa: S608
                f" where b.finished_at is null and b.callback is not null and {_IS_STALE}",
                self._stale,
            ).fetchall()
        for (batch_id,) in rows:
            with self._database.transaction() as conn:
                row = _lock(
                    conn,
                    "select callback - 'payload', callback ->> 'payload', callback -> 'payload' ? '$sealed'"
                    "  from queue.batch"
                    " where id = %s and finished_at is null",
                    batch_id,
                )
                if row is None:
                    self._report.busy += 1
                    continue
                callback, text, was_sealed = row
                job_id = UUID(callback["id"]) if "id" in callback else new_id()
                effect_id = UUID(callback["redrive_of"]) if callback.get("redrive_of") else job_id
                payload = self._sealed_anew(of_job(callback["queue"], effect_id), text)
                if payload is not None:
                    callback |= {"id": str(job_id), "payload": json.loads(payload)}
                    conn.execute("update queue.batch set callback = %s where id = %s", (to_json(callback), batch_id))
                    self._count(was_sealed)

    def _token_caches(self) -> None:
        store = PostgresTokenCache(self._database)
        with self._database.connection() as conn:
            rows = conn.execute(
                "select account from queue.token_cache where key_id <> %(current)s", self._stale
            ).fetchall()
        for (account,) in rows:
            stored = store.load(account)
            if stored is None or self._cipher.is_current(stored.sealed):
                continue
            try:
                plaintext = self._cipher.open(account, stored.sealed)
            except CannotOpenError as error:
                self._report.left[f"the service account's sign-in does not open: {error}"] += 1
                continue
            if store.save(account, self._cipher.seal(account, plaintext), stored.version):
                self._report.resealed += 1
            else:
                self._report.busy += 1

    def _sealed_anew(self, bound_to: bytes, text: str) -> str | None:
        """The payload as it is to stand in the row; None when it must stay as it is."""
        opened = self._sealer.open_text(bound_to, text)
        if isinstance(opened, Unreadable):
            self._report.left[opened.reason] += 1
        elif len(opened.encode()) > LARGEST_OPENED_BYTES:
            self._report.left[f"a payload has more than {LARGEST_OPENED_BYTES:,} bytes of JSON"] += 1
        else:
            return to_json(self._sealer.seal_text(bound_to, opened))
        return None

    def _count(self, was_sealed: bool) -> None:
        if was_sealed:
            self._report.resealed += 1
        else:
            self._report.sealed += 1


def _lock(conn: psycopg.Connection, select: LiteralString, key: object) -> Sequence[Any] | None:
    """The row, locked until the transaction ends; None when somebody holds it, or it is gone."""
    return conn.execute(f"{select} for update skip locked", (key,)).fetchone()
