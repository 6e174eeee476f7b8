"""Recurring schedules: each slot of a cron expression makes one job.

A slot's job has the idempotency key `schedule:<name>:<slot in UTC>`, and is stored in the transaction that moves
`next_run_at` on: a scheduler that dies between the two has done neither. All times are the database's.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from shared.engine.cron import Cron, CronError, ZoneError, parse_cron, parse_zone
from shared.engine.enqueue import Producer
from shared.engine.errors import ControlError, EnqueueError, PayloadError, Problem
from shared.engine.job import HIGHEST_PRIORITY, LOWEST_PRIORITY, Enqueued, NewJob, Unreadable
from shared.engine.json_text import to_json

log = logging.getLogger(__name__)

LONGEST_NAME = 100
#: A slot that is run no later than this is on time, whatever the catch-up policy: the scheduler comes every minute,
#: and a restart or a failover is no outage.
ON_TIME = timedelta(minutes=5)
#: What one pass makes of one schedule at most; the next pass goes on.
SLOTS_A_PASS = 1000
PAYLOAD_BYTES_A_PASS = 16 * 1024 * 1024
_LOOK_BACK = tuple(timedelta(days=days) for days in (0.25, 2, 32, 370, 1600))


class CatchUp(StrEnum):
    """What is done about slots that nobody ran for longer than ON_TIME."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A row of `scheduled_jobs`. Slots after `planned_from` count; `last_run_at` is when the last job was made.

    A payload that cannot be opened (`unreadable`) stands here as it is stored. `next_run_at` is None until the
    scheduler has planned a row made in SQL, and while a `problem` keeps it from that.
    """

    name: str
    queue: str
    payload: dict[str, Any]
    cron: str
    time_zone: str
    priority: int | None
    catch_up: CatchUp
    paused: bool
    planned_from: datetime
    next_run_at: datetime | None
    last_run_at: datetime | None = None
    last_job_id: UUID | None = None
    problem: str | None = None
    unreadable: Unreadable | None = None


class Held(Protocol):
    """One schedule, locked until the block ends. Leaving the block commits, an exception undoes all of it."""

    @property
    def schedule(self) -> Schedule: ...

    @property
    def now(self) -> datetime:
        """The database's clock, read when the lock was taken."""
        ...

    @property
    def conn(self) -> Any:
        """The transaction, for Producer.enqueue."""
        ...

    def undoing(self) -> AbstractContextManager[object]:
        """A block whose exception undoes only what the block did."""
        ...

    def save(self, schedule: Schedule) -> None: ...

    def raise_alert(self, title: str, details: dict[str, Any]) -> None:
        """Open the schedule's alert, or count it up."""
        ...

    def resolve_alert(self) -> None: ...


class ScheduleStore(Protocol):
    """Where schedules live. Raises StoreUnavailableError."""

    def next_due(self, after: str) -> AbstractContextManager[Held | None]:
        """The next schedule by name after `after` that is due or not planned yet, and that nobody else holds."""
        ...

    def hold(self, name: str) -> AbstractContextManager[Held | None]:
        """The schedule of this name, waiting for whoever holds it; None when there is none."""
        ...

    def now(self) -> datetime: ...

    def add(self, schedule: Schedule) -> bool:
        """False when the name is taken. Raises PayloadError for what only the database knows to be wrong."""
        ...

    def delete(self, name: str) -> bool: ...

    def list(self) -> Sequence[Schedule]: ...


class Schedules:
    """The verbs. A schedule that does not exist is answered with None or False, a wrong value with PayloadError."""

    def __init__(self, store: ScheduleStore, producer: Producer) -> None:
        self._store = store
        self._producer = producer

    def put(
        self,
        name: str,
        queue: str,
        payload: dict[str, Any],
        cron: str,
        *,
        time_zone: str = "UTC",
        priority: int | None = None,
        catch_up: CatchUp | str = CatchUp.ONCE,
        paused: bool | None = None,
        replace_other: bool = True,
    ) -> Schedule:
        """Create the schedule, or replace the one of this name.

        A replaced one keeps its next run, also an overdue one, unless `cron`, `time_zone` or `paused` changes: an app
        may put its schedules at every start. `paused` left out stays what it is. Without `replace_other` there must be
        none of this name. Raises PayloadError, ControlError (there is one), StoreUnavailableError.
        """
        now = self._store.now()
        self._check(name, queue, payload, cron, time_zone, priority, catch_up, paused, now)
        plan, next_run_at = planned(cron, time_zone, now)
        payload = json_copy(payload)
        while True:
            new = Schedule(
                name=name,
                queue=queue,
                payload=payload,
                cron=plan.expression,
                time_zone=plan.zone.key,
                priority=priority,
                catch_up=CatchUp(catch_up),
                paused=bool(paused),
                planned_from=now,
                next_run_at=next_run_at,
            )
            if self._store.add(new):
                return new
            if not replace_other:
                raise ControlError(f'there is a schedule "{name}" already')
            with self._store.hold(name) as held:
                if held is not None:  # else it was deleted meanwhile
                    replaced = _replaced(held.schedule, new, plan, held.now, paused)
                    _save_mended(held, replaced)
                    return replaced

    def pause(self, name: str) -> Schedule | None:
        """Make no more jobs until `resume`."""
        with self._store.hold(name) as held:
            if held is None:
                return None
            paused = replace(held.schedule, paused=True)
            held.save(paused)
            return paused

    def resume(self, name: str) -> Schedule | None:
        """Go on with the next future slot; what fell into the pause is not made up. Raises PayloadError."""
        with self._store.hold(name) as held:
            if held is None:
                return None
            if not held.schedule.paused:
                return held.schedule
            _, next_run_at = planned(held.schedule.cron, held.schedule.time_zone, held.now)
            resumed = replace(held.schedule, paused=False, problem=None, planned_from=held.now, next_run_at=next_run_at)
            _save_mended(held, resumed)
            return resumed

    def run_now(self, name: str) -> Enqueued | None:
        """Make a job now, besides the slots, also when it is paused. Raises EnqueueError."""
        with self._store.hold(name) as held:
            if held is None:
                return None
            schedule = held.schedule
            if schedule.unreadable is not None:
                raise PayloadError(schedule.unreadable.reason)
            correlation_id = f"schedule:{name}:now"
            job = NewJob(schedule.queue, schedule.payload, schedule.priority, correlation_id=correlation_id)
            [made] = self._producer.enqueue_many([job], conn=held.conn)
            held.save(replace(schedule, last_run_at=held.now, last_job_id=made.id))
        self._producer.wake_for([job], [made])
        return made

    def take(self, name: str) -> Schedule | None:
        """The schedule, which nobody else changes until the caller's transaction, if there is one, ends."""
        with self._store.hold(name) as held:
            return held.schedule if held is not None else None

    def delete(self, name: str) -> bool:
        """Forget the schedule; jobs that it made stay."""
        return self._store.delete(name)

    def list(self) -> Sequence[Schedule]:
        """All of them, by name."""
        return self._store.list()

    def upcoming(self, cron: object, time_zone: object, count: int = 5) -> tuple[Cron, Sequence[datetime]]:
        """An expression in its zone, and its next slots from now on. Raises PayloadError."""
        plan, first = planned(cron, time_zone, self._store.now())
        slots = [first]
        while len(slots) < count:
            slots.append(plan.next_after(slots[-1]))
        return plan, slots

    def _check(
        self,
        name: object,
        queue: object,
        payload: dict[str, Any],
        cron: object,
        time_zone: object,
        priority: object,
        catch_up: object,
        paused: object,
        now: datetime,
    ) -> None:
        problems: list[Problem] = []
        if not (isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name.isprintable()):
            problems.append(Problem("name", f"it must be 1 to {LONGEST_NAME} printable characters"))
        if catch_up not in list(CatchUp):
            problems.append(Problem("catchUp", 'it must be "skip", "once" or "all"'))
        if paused is not None and not isinstance(paused, bool):
            problems.append(Problem("paused", "it must be true or false, or left out"))
        if priority is not None and not (type(priority) is int and HIGHEST_PRIORITY <= priority <= LOWEST_PRIORITY):
            problems.append(Problem("priority", "it must be a whole number from 1 (first) to 10 (last)"))
        problems.extend(self._job_problems(queue, payload))
        try:
            planned(cron, time_zone, now)
        except PayloadError as error:
            problems.extend(error.problems)
        if problems:
            raise _refused(problems)

    def _job_problems(self, queue: object, payload: dict[str, Any]) -> Sequence[Problem]:
        if not isinstance(queue, str):
            return [Problem("queue", "it must be the name of a queue")]
        try:
            self._producer.validate(NewJob(queue, payload))
        except EnqueueError as error:
            return error.problems or [Problem("queue", str(error))]
        return []


class Scheduler:
    """Runs every minute, in as many places as may be."""

    def __init__(self, store: ScheduleStore, producer: Producer) -> None:
        self._store = store
        self._producer = producer

    def run(self) -> int:
        """One pass over what is due; returns how many jobs it made. Raises StoreUnavailableError.

        Each schedule is a transaction of its own, and workers are woken after its commit. One that cannot be run is
        logged, raises an alert and goes on with its next slot; the others do not wait for it.
        """
        jobs, after = 0, ""
        while True:
            with self._store.next_due(after) as held:
                if held is None:
                    return jobs
                after = held.schedule.name
                asked, made = self._take(held)
            self._producer.wake_for(asked, made)
            jobs += sum(one.created for one in made)

    def _take(self, held: Held) -> tuple[list[NewJob], list[Enqueued]]:
        schedule = held.schedule
        try:
            plan, following = planned(schedule.cron, schedule.time_zone, held.now)
            first = schedule.next_run_at or plan.next_after(schedule.planned_from)
            slots, next_run_at = due_slots(plan, first, held.now, schedule.catch_up, slots_a_pass(schedule.payload))
        except (PayloadError, CronError) as error:
            self._fail(held, None, str(error))
            return [], []
        if schedule.unreadable is not None:  # with its key the slots are made up for, as after an outage
            missing = schedule.unreadable.key_id is not None
            self._fail(held, first if missing else following, schedule.unreadable.reason)
            return [], []
        if first < held.now - ON_TIME:
            log.warning("schedule.was_late", extra={"schedule": schedule.name, "since": first.isoformat()})
        asked = [_job(schedule, slot) for slot in slots]
        try:
            with held.undoing():
                made = self._producer.enqueue_many(asked, conn=held.conn)
        except EnqueueError as error:
            self._fail(held, following, str(error))
            return [], []
        self._save_success(held, next_run_at, made)
        return asked, made

    def _save_success(self, held: Held, next_run_at: datetime, made: Sequence[Enqueued]) -> None:
        if not made:
            held.save(replace(held.schedule, next_run_at=next_run_at))
            if held.schedule.problem is None:  # a change in SQL has cleared it
                held.resolve_alert()
            return
        held.save(
            replace(held.schedule, next_run_at=next_run_at, last_run_at=held.now, last_job_id=made[-1].id, problem=None)
        )
        held.resolve_alert()
        log.info("schedule.ran", extra={"schedule": held.schedule.name, "jobs": sum(one.created for one in made)})

    def _fail(self, held: Held, next_run_at: datetime | None, reason: str) -> None:
        schedule = held.schedule
        log.error("schedule.failed", extra={"schedule": schedule.name, "queue": schedule.queue, "error": reason})
        held.save(replace(schedule, next_run_at=next_run_at, problem=reason))
        details = {"schedule": schedule.name, "queue": schedule.queue, "lastMessage": reason}
        held.raise_alert(f"The schedule {schedule.name} makes no jobs", details)


def _save_mended(held: Held, schedule: Schedule) -> None:
    """Save what has no problem any more: an alert about it is over."""
    held.save(schedule)
    held.resolve_alert()


def planned(cron: object, time_zone: object, after: datetime) -> tuple[Cron, datetime]:
    """The expression in its zone, and its first slot after an instant. Raises PayloadError."""
    problems: list[Problem] = []
    zone = parse_zone("UTC")
    try:
        zone = parse_zone(time_zone)
    except ZoneError as error:
        problems.append(Problem("timeZone", str(error)))
    try:
        plan = parse_cron(cron, zone)
        first = plan.next_after(after)
    except CronError as error:
        problems.append(Problem("cron", str(error)))
    if problems:
        raise _refused(problems)
    return plan, first


def due_slots(
    plan: Cron, first: datetime, now: datetime, catch_up: CatchUp, at_most: int = SLOTS_A_PASS
) -> tuple[list[datetime], datetime]:
    """Which slots to run now, in order, and when the next is; `first` is the first that was not run.

    The next slot is later than `now`, unless `all` had more than `at_most` of them. Raises CronError.
    """
    if first > now:
        return [], first
    if catch_up is CatchUp.ALL:
        slots = [first]
        while len(slots) <= at_most and (following := plan.next_after(slots[-1])) <= now:
            slots.append(following)
        return (slots[:at_most], slots[at_most]) if len(slots) > at_most else (slots, following)
    slots = _between(plan, max(first, now - ON_TIME), now, first)
    if not slots and catch_up is CatchUp.ONCE:
        slots = [_newest(plan, first, now)]
    return slots, plan.next_after(now)


def slots_a_pass(payload: dict[str, Any]) -> int:
    """So many that the payloads of one statement stay bounded."""
    return max(1, min(SLOTS_A_PASS, PAYLOAD_BYTES_A_PASS // len(to_json(payload))))


def slot_key(name: str, slot: datetime) -> str:
    """The idempotency key of a slot's job."""
    return f"schedule:{name}:{slot.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def json_copy(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload as the database will give it back."""
    copy: dict[str, Any] = json.loads(to_json(payload))
    return copy


def _between(plan: Cron, start: datetime, now: datetime, first: datetime) -> list[datetime]:
    """The slots from `start` (included where it is the first one) to `now`."""
    slots = [first] if start == first else []
    slot = plan.next_after(start)
    while slot <= now:
        slots.append(slot)
        slot = plan.next_after(slot)
    return slots


def _newest(plan: Cron, first: datetime, now: datetime) -> datetime:
    """The last slot up to `now`: looked for from near to far, since there may be a million since the first."""
    for span in _LOOK_BACK:
        start = now - span
        if start <= first:
            break
        if slots := _between(plan, start, now, first):
            return slots[-1]
    return _between(plan, first, now, first)[-1]


def _job(schedule: Schedule, slot: datetime) -> NewJob:
    key = slot_key(schedule.name, slot)
    return NewJob(
        schedule.queue, schedule.payload, schedule.priority, run_at=slot, idempotency_key=key, correlation_id=key
    )


def _replaced(old: Schedule, new: Schedule, plan: Cron, now: datetime, paused: bool | None) -> Schedule:
    """`new`, with what stays of the old one."""
    new = replace(
        new,
        paused=old.paused if paused is None else paused,
        last_run_at=old.last_run_at,
        last_job_id=old.last_job_id,
    )
    same_times = (new.cron, new.time_zone) == (old.cron, old.time_zone)
    resumed = old.paused and not new.paused
    if same_times and not resumed and (old.next_run_at is not None or old.problem is None):
        return replace(new, planned_from=old.planned_from, next_run_at=old.next_run_at)
    return replace(new, planned_from=now, next_run_at=plan.next_after(now))


def _refused(problems: Sequence[Problem]) -> PayloadError:
    return PayloadError("; ".join(f"{problem.field}: {problem.message}" for problem in problems), problems)
