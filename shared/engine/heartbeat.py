"""Keeps the leases of running jobs alive, and tells their handlers when a lease is lost or the job is to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Event

from shared.engine.errors import StoreUnavailableError
from shared.engine.job import Job, Lease
from shared.engine.ports import Store

log = logging.getLogger(__name__)

#: A lease is renewed this often in its length, so that two beats may fail.
BEATS_PER_LEASE = 3
#: With the worker's time budget and one more outside call, below host.json's functionTimeout of five minutes: a
#: handler that hangs loses its lease before the host gives up on the function.
LONGEST_RUN = timedelta(minutes=3)


@dataclass(slots=True)
class _Held:
    lease: Lease
    length: timedelta
    lost: Event
    stop: Event
    since: float


class Heartbeat:
    """One thread a process, started with the first lease. `beat()` is one round, for tests as well."""

    def __init__(
        self, store: Store, longest_run: timedelta = LONGEST_RUN, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._monotonic = monotonic
        self._longest_run = longest_run.total_seconds()
        self._held: dict[int, _Held] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    @contextmanager
    def keep(self, job: Job, length: timedelta, lost: Event, stop: Event) -> Iterator[None]:
        """Renew the job's lease while the block runs; set `lost` when another worker has it, `stop` when cancelled."""
        held = _Held(Lease(job.id, job.lease_token), length, lost, stop, self._monotonic())
        with self._changed:
            self._held[id(held)] = held
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._held[id(held)]

    def stop(self) -> None:
        """End the thread; leases are no longer renewed."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def beat(self) -> None:
        """Renew every held lease once; those of handlers that run for too long are left to the rescue.

        A job may be held twice: its first attempt hangs, and this process has claimed it anew since. That proves the
        older lease lost; and `renew` answers by job, so it must not be asked for both.
        """
        with self._changed:
            held = list(self._held.values())
        now = self._monotonic()
        newest = {one.lease.job_id: one for one in held}
        by_length: dict[timedelta, list[_Held]] = {}
        for one in held:
            if now - one.since > self._longest_run or newest[one.lease.job_id] is not one:
                one.lost.set()
            else:
                by_length.setdefault(one.length, []).append(one)
        for length, group in by_length.items():
            try:
                renewal = self._store.renew([one.lease for one in group], length)
            except StoreUnavailableError as error:
                log.warning("heartbeat.missed", extra={"leases": len(group), "error": str(error)})
                continue
            for one in group:
                if one.lease.job_id in renewal.lost:
                    one.lost.set()
                elif one.lease.job_id in renewal.asked_to_stop:
                    one.stop.set()

    def _run(self) -> None:
        while True:
            if self._wait():
                return
            try:
                self.beat()
            except Exception:
                # The thread must outlive anything: without it every long job loses its lease.
                log.exception("heartbeat.failed")

    def _wait(self) -> bool:
        """Wait until the next beat is due; True to end. A shorter lease that comes brings it forward."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._stopped)
            since = time.monotonic()
            while self._held and not self._stopped:
                shortest = min(one.length for one in self._held.values())
                left = since + shortest.total_seconds() / BEATS_PER_LEASE - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._stopped
