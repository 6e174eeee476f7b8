"""Takes a wake-up's worth of jobs: claim the best, run, settle, and on to the next."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from random import Random

from shared import tracing
from shared.engine.backoff import JITTER, asked_pause, decide
from shared.engine.classify import classify
from shared.engine.context import Context, Handler
from shared.engine.enqueue import LONGEST_WAKE_DELAY, PayloadParser, Producer
from shared.engine.errors import (
    EnqueueError,
    JobCancelledError,
    LeaseLostError,
    LimitReachedError,
    NewerPayloadError,
    ParkedError,
    PayloadError,
    StoreUnavailableError,
)
from shared.engine.heartbeat import Heartbeat
from shared.engine.job import (
    FOUND_NOTHING,
    Cancelled,
    Claimed,
    Completed,
    Dead,
    Deferred,
    ErrorClass,
    Failure,
    Job,
    NewJob,
    Outcome,
    Released,
    Retry,
    Settled,
    Settlement,
    Unreadable,
)
from shared.engine.json_text import to_json
from shared.engine.ports import QueueSettings, Store
from shared.engine.settle import Settler, not_stored

log = logging.getLogger(__name__)

#: A wake-up is not worked on for longer; what is left goes back as a new one, so that a shutdown waits little.
TIME_BUDGET = timedelta(seconds=60)
#: A job whose payload was sealed with a key that is not here yet waits for so long, and does not die of it.
MISSING_KEY_PAUSE = timedelta(minutes=1)
#: A job that a newer release made is looked at again after so long, by a host of that release in the end; where none
#: comes within the patience, the job dies of the fields that nobody knows.
RELEASE_PAUSE = timedelta(minutes=1)
RELEASE_PATIENCE = timedelta(hours=1)
#: A claim that had to move many jobs out of its way is asked again, this often at most.
CLAIM_TRIES = 50


@dataclass(slots=True)
class Report:
    """What a run did: `left` jobs of the wake-up were not looked at; at `back_at` (monotonic) a limit lets more go."""

    ran: int = 0
    left: int = 0
    lost: list[Job] = field(default_factory=list)
    back_at: float | None = None


class Worker:
    """Runs jobs; one for a process, used by many threads. `handler_for(queue)` builds the queue's handler.

    `on_missing_key` hears of each job whose payload does not open, and `on_parked` of each that lacks what it needs:
    it returns for how long the job is put off. `now` tells the age of a job whose payload is a newer release's, to the
    minute; without it, such a job dies at once.
    """

    def __init__(
        self,
        store: Store,
        producer: Producer,
        handler_for: Callable[[str], Handler],
        parse: PayloadParser,
        random: Random,
        worker_id: str,
        heartbeat: Heartbeat | None = None,
        on_missing_key: Callable[[str], None] | None = None,
        on_parked: Callable[[Job, ParkedError], timedelta] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._store = store
        self._producer = producer
        self._settler = Settler(store, random)
        self._handler_for = handler_for
        self._parse = parse
        self._random = random
        self._worker_id = worker_id
        self._heartbeat = heartbeat or Heartbeat(store)
        self._on_missing_key = on_missing_key
        self._on_parked = on_parked
        self._monotonic = monotonic
        self._now = now
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Graceful stop: start nothing more, give back what has not started, let running handlers end."""
        self._stopping.set()

    def run(self, queue: str, jobs: int, time_budget: timedelta = TIME_BUDGET) -> Report:
        """Run up to `jobs` jobs of a queue, best first, and all that may run when the queue has limits, since wake-ups
        that met them have ended. Raises StoreUnavailableError; leases then run out."""
        settings = self._store.settings(queue)
        until = self._monotonic() + time_budget.total_seconds()
        report = Report(left=jobs)
        claimed = self._claim(settings, report)
        while claimed.jobs:
            settlements = self._run_batch(claimed.jobs, settings)
            report.ran += sum(not isinstance(s.outcome, Released) for s in settlements)
            report.left = max(0, report.left - len(claimed.jobs))
            batch = {job.id: job for job in claimed.jobs}
            go_on = (
                (report.left > 0 or settings.has_limits) and not self._stopping.is_set() and self._monotonic() < until
            )
            try:
                settled, claimed = self._settle(settlements, settings, report if go_on else None)
            except EnqueueError:
                settlements, settled = self._settler.settle_each(settlements, batch, settings.retries)
                claimed = self._claim(settings, report) if go_on else Claimed()
            for job_id in settled.lost:
                report.lost.append(batch[job_id])
                log.warning("lease.lost", extra=_ids(batch[job_id]))
            for settlement in settlements:
                if settlement.job_id not in settled.lost:
                    self._producer.wake_after(queue, settlement.outcome)
            self._producer.wake_freed(settled.freed, but=(queue, len(claimed.jobs)))
            if go_on and not claimed.jobs:
                report.left = 0
        if report.ran == 0 and not self._stopping.is_set():
            report.left = 0  # nothing was runnable: a spare wake-up ends here
        if report.back_at is not None:
            delay = timedelta(seconds=max(0.0, report.back_at - self._monotonic()))
            if delay <= LONGEST_WAKE_DELAY:
                self._producer.wake(queue, 1, delay)
        return report

    def _claim(self, settings: QueueSettings, report: Report) -> Claimed:
        if self._stopping.is_set() or settings.paused:
            return Claimed()
        for _ in range(CLAIM_TRIES):
            claimed = self._store.claim(*self._claim_of(settings, report))
            self._note_wait(claimed, report)
            if claimed.jobs or claimed.wait is None or claimed.wait > timedelta():
                break
        return claimed

    def _claim_of(self, settings: QueueSettings, report: Report) -> tuple[str, int, str, timedelta]:
        """What a claim is called with. A limited queue goes on beyond its wake-up's jobs, then one at a time."""
        limit = min(settings.claim_batch, max(report.left, 1))
        return settings.queue, limit, self._worker_id, settings.lease

    def _note_wait(self, claimed: Claimed, report: Report) -> None:
        """Remember when what a limit holds back may go: a wake-up comes back then, nobody waits for it here."""
        if claimed.wait is not None:
            back_at = self._monotonic() + claimed.wait.total_seconds()
            report.back_at = back_at if report.back_at is None else min(report.back_at, back_at)

    def _settle(
        self, settlements: Sequence[Settlement], settings: QueueSettings, report: Report | None
    ) -> tuple[Settled, Claimed]:
        """Settle, and with a report claim the next in the same round trip."""
        if report is not None:
            try:
                settled, claimed = self._store.settle_and_claim(settlements, *self._claim_of(settings, report))
                self._note_wait(claimed, report)
                return settled, claimed
            except StoreUnavailableError as error:
                log.warning("settle.failed", extra={"queue": settings.queue, "error": str(error)})
        return self._settler.settle(settlements), Claimed()

    def _run_batch(self, jobs: Sequence[Job], settings: QueueSettings) -> list[Settlement]:
        """Run them one after the other; until the last has ended, the leases of all are kept."""
        settlements = []
        contexts = [self._context(job) for job in jobs]
        with ExitStack() as leases:
            for job, context in zip(jobs, contexts, strict=True):
                keep = self._heartbeat.keep(job, settings.lease, context.lease_lost, context.stop_requested)
                leases.enter_context(keep)
            for job, context in zip(jobs, contexts, strict=True):
                outcome = Released() if self._stopping.is_set() else self._run_one(job, context, settings)
                if outcome is not None:
                    block = asked_pause(outcome)
                    settlements.append(Settlement(job.id, job.lease_token, outcome, context.details, block))
        return settlements

    def _context(self, job: Job) -> Context:
        return Context(
            saver=partial(self._store.save_progress, job.id, job.lease_token),
            permits=partial(self._store.take_permits, job.queue),
            paid=job.permits,
        )

    def _run_one(self, job: Job, context: Context, settings: QueueSettings) -> Outcome | None:
        """One attempt; None when the lease was lost, so that there is nothing left to settle."""
        with tracing.attempt(str(job.id), job.queue, job.attempt, job.correlation_id) as span:
            outcome = self._attempt(job, context, settings)
            span.set("fleet_queue.outcome", type(outcome).__name__.lower() if outcome is not None else "lost")
            if isinstance(outcome, Retry | Dead):
                span.set("error.type", outcome.failure.error_class.value)
        return outcome

    def _attempt(self, job: Job, context: Context, settings: QueueSettings) -> Outcome | None:
        started = self._monotonic()
        outcome: Outcome
        try:
            outcome = self._handle(job, context)
        except LeaseLostError:
            log.warning("lease.lost", extra=_ids(job))
            return None
        except JobCancelledError:
            outcome = Cancelled()
        except LimitReachedError as error:
            outcome = Deferred(error.wait, str(error), error.permits)
        except ParkedError as error:
            outcome = self._park(job, error)
        except NewerPayloadError as error:
            outcome = self._wait_for_release(job, error)
        except PayloadError as error:
            outcome = Dead(Failure(ErrorClass.VALIDATION, str(error)))
        except Exception as error:
            failure = classify(error)
            if failure.error_class is ErrorClass.UNKNOWN:
                log.exception("job.failed_unexpectedly", extra=_ids(job))
            looked = bool(context.details.get(FOUND_NOTHING))
            outcome = decide(job, failure, self._random, settings.retries, found_nothing=looked)
        _log_outcome(job, outcome, self._monotonic() - started)
        return outcome

    def _handle(self, job: Job, context: Context) -> Completed | Deferred:
        context.checkpoint()  # the jobs before this one of the batch may have taken too long
        if job.unreadable is not None:
            return self._put_off(job, job.unreadable)
        payload = self._parse(job.queue, job.payload)
        outcome = self._handler_for(job.queue)(job, payload, context) or Completed()
        if isinstance(outcome, Completed):
            to_json(outcome.result)
            for follow_up in outcome.follow_ups:
                self._validate_follow_up(follow_up)
            if outcome.follow_ups and job.correlation_id is not None:
                outcome = replace(outcome, follow_ups=tuple(_correlated(one, job) for one in outcome.follow_ups))
        return outcome

    def _put_off(self, job: Job, unreadable: Unreadable) -> Deferred:
        if unreadable.key_id is None:
            raise PayloadError(unreadable.reason)
        log.error("payload.not_opened", extra=_ids(job) | {"key_id": unreadable.key_id, "error": unreadable.reason})
        if self._on_missing_key is not None:
            self._on_missing_key(unreadable.key_id)
        return Deferred(MISSING_KEY_PAUSE, unreadable.reason)

    def _wait_for_release(self, job: Job, error: NewerPayloadError) -> Dead | Deferred:
        """While a deployment is under way, old workers meet jobs of new producers."""
        if self._now is None or job.enqueued_at is None or self._now() - job.enqueued_at > RELEASE_PATIENCE:
            return Dead(Failure(ErrorClass.VALIDATION, str(error)))
        return Deferred(RELEASE_PAUSE, f"{error}: the payload is from a newer release; it waits for the deployment")

    def _park(self, job: Job, error: ParkedError) -> Deferred:
        """Put it off; `on_parked` tells whoever can help, calls the job back in time, and knows for how long."""
        pause = self._on_parked(job, error) if self._on_parked is not None else error.pause
        log.warning("job.parked", extra=_ids(job) | {"needs": error.needs, "error": str(error)})
        return Deferred(pause * (1 + JITTER * self._random.random()), str(error))

    def _validate_follow_up(self, follow_up: NewJob) -> None:
        """A follow-up that cannot be stored is the handler's mistake, not this job's payload's."""
        try:
            self._producer.validate(follow_up)
        except EnqueueError as error:
            raise not_stored(error) from error


def _correlated(follow_up: NewJob, job: Job) -> NewJob:
    """What follows from a job is told by the same correlation id, unless it has one of its own."""
    return follow_up if follow_up.correlation_id is not None else replace(follow_up, correlation_id=job.correlation_id)


def _ids(job: Job) -> dict[str, object]:
    return {
        "job_id": str(job.id),
        "queue": job.queue,
        "attempt": job.attempt,
        "correlation_id": job.correlation_id,
    }


def _log_outcome(job: Job, outcome: Outcome, seconds: float) -> None:
    facts = _ids(job) | {"seconds": round(seconds, 3)}
    match outcome:
        case Completed():
            log.info("job.completed", extra=facts)
        case Retry():
            facts |= {"error_class": outcome.failure.error_class.value, "error": outcome.failure.message}
            log.warning("job.retried", extra=facts | {"delay_seconds": outcome.delay.total_seconds()})
        case Dead():
            facts |= {"error_class": outcome.failure.error_class.value, "error": outcome.failure.message}
            log.error("job.died", extra=facts)
        case Deferred():
            log.info("job.deferred", extra=facts | {"delay_seconds": outcome.delay.total_seconds()})
        case Cancelled():
            log.info("job.cancelled", extra=facts)
