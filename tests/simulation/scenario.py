"""What the users of the engine do in one simulation: queues with their limits, jobs with their options, and orders."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any

from shared.engine.enqueue import DEAD_LETTERS
from shared.engine.job import (
    ConcurrencyKey,
    Debounce,
    FairnessKey,
    IfDependencyFails,
    Lane,
    NewJob,
    OnDead,
    OrderingKey,
    Singleton,
    SingletonPolicy,
    Throttle,
    Unique,
)
from shared.engine.ports import Limits, QueueSettings, Rate
from tests.simulation.faults import FaultPlan, draw_plan

WORK_QUEUES = ("mails", "chats", "files")
#: Carries notifications, as Graph posts them.
WEBHOOKS = "webhooks"
LOAD_SECONDS = (10.0, 60.0, 240.0)
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Planned:
    """An enqueue. `after` numbers earlier ones that it depends on; a batch has several jobs and a callback."""

    at: float
    number: int
    jobs: tuple[NewJob, ...]
    after: tuple[int, ...] = ()
    is_batch: bool = False
    callback: NewJob | None = None
    tries: int = 1


@dataclass(frozen=True, slots=True)
class ForeignJob:
    """A job that somebody else puts into a queue as a message."""

    at: float
    queue: str
    number: int


@dataclass(frozen=True, slots=True)
class Notified:
    """A delivery of Graph's: the changes that it tells of."""

    at: float
    changes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator asks for, of a queue or of a job drawn when the time comes."""

    at: float
    verb: str


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A recurring schedule of one job a minute or so."""

    name: str
    queue: str
    cron: str
    catch_up: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that a seed decides beforehand."""

    seed: int
    hosts: int
    slots: int
    settings: tuple[QueueSettings, ...]
    faults: FaultPlan
    planned: tuple[Planned, ...]
    foreign: tuple[ForeignJob, ...]
    notified: tuple[Notified, ...]
    orders: tuple[Order, ...]
    schedules: tuple[Scheduled, ...] = ()

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(one.queue for one in self.settings)

    def describe(self) -> str:
        """What was drawn, in a few lines."""
        limits = [f"{one.queue}: {one.limits}" for one in self.settings if one.has_limits]
        rates = {name: round(rate, 4) for name, rate in asdict(self.faults.rates).items() if rate}
        return "\n".join(
            (
                f"{self.hosts} hosts with {self.slots} messages of a queue at once; {len(self.planned)} enqueues, "
                f"{len(self.foreign)} foreign jobs, {len(self.notified)} deliveries, {len(self.orders)} orders, "
                f"{len(self.schedules)} schedules",
                *limits,
                f"faults until {self.faults.end:.0f} s: {rates}",
                f"database away {self.faults.database_outages}, storage away {self.faults.storage_outages}",
            )
        )


@dataclass(slots=True)
class _Mix:
    """How likely a job of this seed has an option: each is absent, rare or common."""

    random: Random
    likely: dict[str, float] = field(default_factory=dict)

    def has(self, option: str) -> bool:
        if option not in self.likely:
            self.likely[option] = self.random.choice((0.0, 0.0, 0.15, 0.5))
        return self.random.random() < self.likely[option]


def draw(seed: int) -> Scenario:
    random = Random(seed)
    mix = _Mix(random)
    load = random.choice(LOAD_SECONDS)
    settings = _settings(random, mix)
    names = [one.queue for one in settings if one.queue in WORK_QUEUES]
    planned = _planned(random, mix, names, load)
    first = 1000
    foreign = [
        ForeignJob(random.uniform(0, load), random.choice(names), first + i)
        for i in range(random.randint(1, 4) if mix.has("foreign") else 0)
    ]
    changes = list(range(random.choice((0, 0, 2, 5))))
    notified = [
        Notified(random.uniform(0, load), tuple(random.sample(changes, random.randint(1, len(changes)))))
        for _ in range(len(changes))
    ]
    verbs = (
        "pause",
        "resume",
        "cancel",
        "cancel",
        "reschedule",
        "retry_now",
        "clear",
        "redrive",
        "limits",
        "ageing",
        "repair",
    )
    orders = [Order(random.uniform(0, load * 1.2), random.choice(verbs)) for _ in range(random.choice((0, 0, 3, 8)))]
    schedules = [
        Scheduled(f"s{i}", random.choice(names), random.choice(("* * * * *", "*/2 * * * *")), catch_up)
        for i, catch_up in enumerate(("all", "once", "skip"))
        if load > 100 and mix.has("schedule")
    ]
    return Scenario(
        seed=seed,
        hosts=random.choice((1, 2, 2, 3)),
        slots=random.choice((1, 2, 4)),
        settings=settings,
        faults=draw_plan(random, load * random.choice((0.5, 1.0, 1.5))),
        planned=planned,
        foreign=tuple(foreign),
        notified=tuple(notified),
        orders=tuple(orders),
        schedules=tuple(schedules),
    )


def draw_limits(random: Random, likely: float = 0.5) -> Limits:
    """Limits that hold back, and still let a queue drain."""

    def some(value: Any) -> Any:
        return value if random.random() < likely else None

    rates = (Rate(2, SECOND), Rate(3, 5 * SECOND), Rate(10, 60 * SECOND))
    rate = some(random.choice(rates))
    return Limits(
        rate=rate,
        concurrency=some(random.choice((1, 2, 3))),
        key_rate=some(random.choice((Rate(1, SECOND), Rate(2, 20 * SECOND)))),
        key_concurrency=some(random.choice((1, 2))),
        job_cost=random.choice((1, 1, 2)),
    )


def draw_ageing(random: Random) -> timedelta:
    return random.choice((SECOND, 5 * SECOND, 60 * SECOND))


def _settings(random: Random, mix: _Mix) -> tuple[QueueSettings, ...]:
    names = random.sample(WORK_QUEUES, random.choice((1, 2, 2, 3)))
    work = [
        QueueSettings(
            name,
            lease=timedelta(seconds=random.choice((30, 45, 60))),
            wake_size=random.choice((4, 16)),
            claim_batch=random.choice((1, 1, 1, 3)),
            limits=draw_limits(random) if mix.has("limits") else Limits(),
            ageing=draw_ageing(random) if mix.has("ageing") else None,
        )
        for name in names
    ]
    return (*work, QueueSettings(WEBHOOKS), QueueSettings(DEAD_LETTERS))


def _planned(random: Random, mix: _Mix, queues: list[str], load: float) -> tuple[Planned, ...]:
    planned = []
    for number in range(random.choice((3, 6, 10, 16))):
        at = random.choice((0.0, random.uniform(0, load), random.uniform(0, load)))
        after: tuple[int, ...] = ()
        if number and mix.has("depends"):
            after = tuple(random.sample(range(number), min(number, random.choice((1, 1, 2)))))
        jobs = [_job(random, mix, queues, number * 10)]
        tries = random.choice((1, 4))
        if mix.has("batch"):
            jobs += [_job(random, mix, queues, number * 10 + i) for i in range(1, random.choice((2, 4)))]
            callback = _plain(random, queues, number * 10 + 9) if random.random() < 0.8 else None
            planned.append(Planned(at, number, tuple(jobs), is_batch=True, callback=callback))
            continue
        if mix.has("bulk"):
            jobs += [_job(random, mix, queues, number * 10 + i) for i in range(1, random.choice((3, 8)))]
        if after:
            what = random.choice(list(IfDependencyFails))
            jobs = [replace(job, if_dependency_fails=what) for job in jobs]
        planned.append(Planned(at, number, tuple(jobs), after=after, tries=tries))
    return tuple(planned)


def _plain(random: Random, queues: list[str], number: int) -> NewJob:
    return NewJob(random.choice(queues), {"n": number, "do": "send"})


def _job(random: Random, mix: _Mix, queues: list[str], number: int) -> NewJob:
    queue = random.choice(queues)
    job = NewJob(queue, _payload(random, mix, number, queues))
    if mix.has("priority"):
        job = replace(job, priority=random.randint(1, 10))
    unique = _unique(random, mix)
    if mix.has("delay") and not isinstance(unique, Debounce):
        job = replace(job, delay=timedelta(seconds=random.choice((1, 5, 25, 90, 600))))
    if mix.has("deadline"):
        job = replace(job, expires_in=(job.delay or timedelta()) + timedelta(seconds=random.choice((2, 30, 300))))
    if isinstance(unique, Debounce):
        job = replace(job, expires_in=None)
    if mix.has("idempotency"):
        job = replace(job, idempotency_key=f"i{random.randint(1, 6)}")
    if mix.has("limit key"):
        job = replace(job, limit_key=f"chat:{random.randint(1, 3)}")
    return replace(job, unique=unique, lane=_lane(random, mix, queue))


def _payload(random: Random, mix: _Mix, number: int, queues: list[str]) -> dict[str, Any]:
    payload: dict[str, Any] = {"n": number, "do": "send"}
    if mix.has("work"):
        payload["work"] = random.choice((0.2, 2.0, 20.0, 40.0, 70.0, 200.0))
    if mix.has("follow-ups"):
        payload["follow"] = [random.choice(queues) for _ in range(random.choice((1, 2, 5)))]
    if mix.has("deferral"):
        payload["defer"] = random.choice((1, 3))
    if mix.has("errors"):
        payload["raise"] = random.choice((1, 2, 9))
    if mix.has("bad payload") and random.random() < 0.3:
        payload["bad"] = True
    if mix.has("progress"):
        payload["parts"] = random.choice((2, 5))
    if mix.has("permits"):
        payload["permits"] = random.choice((1, 1, 2))
    return payload


def _unique(random: Random, mix: _Mix) -> Unique | None:
    key = f"u{random.randint(1, 2)}"
    if mix.has("singleton"):
        return Singleton(key, random.choice(list(SingletonPolicy)))
    if mix.has("debounce"):
        window = timedelta(seconds=random.choice((3, 20)))
        return Debounce(key, window, random.choice((None, 3 * window)))
    if mix.has("throttle"):
        return Throttle(key, timedelta(seconds=random.choice((5, 60))))
    return None


def _lane(random: Random, mix: _Mix, queue: str) -> Lane | None:
    key = f"k{random.randint(1, 2)}"
    if mix.has("ordering"):
        on_dead = OnDead.BLOCK if mix.has("blocking") else OnDead.RELEASE
        return OrderingKey(key, on_dead)
    if mix.has("concurrency key"):
        return ConcurrencyKey(key, 1 if key == "k1" else 2)
    if mix.has("fairness"):
        return FairnessKey(key)
    return None
