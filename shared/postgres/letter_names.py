"""See shared.handlers.services.LetterNames."""

from __future__ import annotations

from collections.abc import Callable

from shared.engine.ports import Store
from shared.handlers.letter_names import names_in
from shared.handlers.services import DeadLetter
from shared.postgres.pool import Database
from shared.sealing import KeyRing, UnknownKeyError


class PostgresLetterNames:
    """Digests beside the dead letter, under the key that seals payloads now."""

    def __init__(self, database: Database, store: Store, ring: Callable[[], KeyRing]) -> None:
        self._database = database
        self._store = store
        self._ring = ring

    def keep(self, letter: DeadLetter) -> None:
        job = self._store.get(letter.job_id) if letter.job_id else None
        names = names_in(job.queue, job.payload) if job is not None else set()
        if not names:
            return
        try:
            ring = self._ring()
        except UnknownKeyError:  # without a key nothing is sealed, and no name may be kept
            return
        digests = [ring.digests(name)[0] for name in sorted(names)]
        with self._database.connection() as conn:
            conn.execute("update queue.dead_letter_queue set names = %s where id = %s", (digests, letter.id))
