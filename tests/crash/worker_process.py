"""A worker process that kills itself at a named point: `python -m tests.crash.worker_process POINT`.

It does what the host does for one queue (receive, call, delete) around the real engine on real servers. The effect
is a row in table `effects`, written on a connection of its own, as a send to somebody else's system would be; the
handler reads back before it repeats one, as our sending handlers do.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any

import psycopg

from shared.engine.context import Context
from shared.engine.enqueue import Producer
from shared.engine.job import Claimed, Job, Settled, Settlement
from shared.engine.receive import Receiver
from shared.engine.worker import Worker
from shared.handlers.registry import QUEUES
from shared.postgres.pool import Database
from shared.postgres.store import PostgresStore
from shared.storage.queues import StorageQueues

QUEUE = "teams-outbound"
POINTS = (
    "after-receive",
    "after-claim",
    "mid-handler",
    "after-effect",
    "before-settle",
    "after-settle",
    "before-delete",
)


class Crasher:
    """SIGKILLs its own process at one point; nothing runs after it, no finally, no atexit."""

    def __init__(self, point: str) -> None:
        self._point = point

    def __call__(self, point: str) -> None:
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)


class CrashingStore(PostgresStore):
    def __init__(self, database: Database, crash: Crasher) -> None:
        super().__init__(database)
        self._crash = crash

    def claim(self, queue: str, limit: int, worker: str, lease: timedelta) -> Claimed:
        claimed = super().claim(queue, limit, worker, lease)
        self._crash("after-claim")
        return claimed

    def settle(self, settlements: Sequence[Settlement], *, only_expired: bool = False) -> Settled:
        self._crash("before-settle")
        settled = super().settle(settlements, only_expired=only_expired)
        self._crash("after-settle")
        return settled

    def settle_and_claim(
        self, settlements: Sequence[Settlement], queue: str, limit: int, worker: str, lease: timedelta
    ) -> tuple[Settled, Claimed]:
        self._crash("before-settle")
        answer = super().settle_and_claim(settlements, queue, limit, worker, lease)
        self._crash("after-settle")
        return answer


def main(point: str) -> None:
    crash = Crasher(point)
    url = os.environ["DATABASE_URL"]
    store = CrashingStore(Database(url, pooler=os.environ.get("DATABASE_POOLER") == "true"), crash)
    storage = StorageQueues(os.environ["QueueStorage"])  # noqa: SIM112 - the name that the triggers have
    producer = Producer(store, storage, QUEUES, lambda queue, text: text)
    effects = psycopg.connect(url, autocommit=True)

    def handler(job: Job, payload: Any, context: Context) -> None:
        crash("mid-handler")
        if job.may_have_taken_effect:
            known = effects.execute("select from effects where job_id = %s", (job.id,)).fetchone()
            if known is not None:
                return
        context.checkpoint()
        effects.execute("insert into effects (job_id) values (%s)", (job.id,))
        crash("after-effect")

    worker = Worker(store, producer, lambda queue: handler, lambda queue, text: text, Random(), f"worker-{os.getpid()}")
    receiver = Receiver(store, storage, producer, worker, Random())
    print("ready", flush=True)  # noqa: T201 - the test waits for this line
    for line in sys.stdin:
        for message in storage.receive(line.strip(), 8, timedelta(minutes=10)):
            crash("after-receive")
            receiver.receive(line.strip(), message.body, message.id)
            crash("before-delete")
            message.delete()
        print("idle", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
