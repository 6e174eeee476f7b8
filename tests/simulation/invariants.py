"""What must be true of every history. Each check reads the log, and the records as they stood in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from shared.engine.enqueue import DEAD_LETTERS
from shared.engine.heartbeat import LONGEST_RUN
from shared.engine.job import ENDED, TRANSITIONS, IfDependencyFails, JobState, Singleton, Throttle
from shared.engine.schedules import planned, slot_key
from tests.simulation.history import Event
from tests.simulation.world import Outcome

Findings = Iterator[str]
#: One attempt of one job: its id and the claim's token.
Claim = tuple[UUID | str, UUID]
ENDED_NAMES = {state.value for state in ENDED}
CLAIMING = ("store.claim", "store.settle_and_claim")
UNCOUNTED = ("deferred", "released")


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    text: str


def i1_every_job_ends_once(seen: Outcome) -> Findings:
    """An accepted enqueue ends in exactly one end state, and no job vanishes."""
    ended = Counter(event.subject for event in seen.history.of("job.ended"))
    yield from (f"{_name(seen, job)} ended {times} times" for job, times in ended.items() if times > 1)
    kept = {record.id for record in seen.observer.store.jobs()}
    for event in seen.history.of("enqueue.accepted"):
        if event.subject not in kept:
            yield f"{_name(seen, event.subject)} was accepted and has vanished"
        elif seen.is_drained and not ended[event.subject]:
            yield f"{_name(seen, event.subject)} was accepted and has not ended"
    for event in seen.history.of("job.moved"):
        was, to = JobState(event.facts["was"]), JobState(event.facts["to"])
        # One verb may take a job through several states: due, held back by a key, let go.
        if was in ENDED or (to not in TRANSITIONS[was] and event.facts["by"] in ("cancel", "clear", "expire_due")):
            yield f"{_name(seen, event.subject)} went from {was} to {to}"
    yield from _foreign_jobs_are_one_each(seen)


def _foreign_jobs_are_one_each(seen: Outcome) -> Findings:
    """Adopted once, or kept as a dead letter. A copy that the host gave up may become a dead letter beside it."""
    made = {"enqueue": Counter[Any](), "bury_job": Counter[Any](), "redrive": Counter[Any]()}
    for event in seen.history.of("job.made"):
        if "foreign" in event.facts["payload"]:
            made[event.facts["by"]][event.facts["payload"]["foreign"]] += 1
    for event in seen.history.of("foreign.accepted"):
        number = event.facts["number"]
        adopted, buried = made["enqueue"][number], made["bury_job"][number]
        if adopted > 1 or (seen.is_drained and not adopted and not buried):
            yield f"the foreign job in message {event.subject} was made {adopted} times"


def i2_one_live_lease(seen: Outcome) -> Findings:
    """At most one live lease, and a settlement without it changes nothing."""
    live: dict[UUID | str, UUID] = {}
    for event in seen.history.of("claimed", "settled", "job.moved", "job.ended"):
        job, facts = event.subject, event.facts
        if event.kind == "claimed":
            if job in live or facts["was"] is None:
                yield f"{_name(seen, job)} was claimed while it was leased (event {event.number})"
            live[job] = facts["token"]
        elif event.kind == "settled" and facts["accepted"]:
            if live.pop(job, None) != facts["token"]:
                yield f"{_name(seen, job)} was settled with a token that was not its own (event {event.number})"
            elif facts["expired"] is False:
                yield f"{_name(seen, job)} was taken back before its lease had ended (event {event.number})"
        elif event.kind == "job.ended" and job in live:
            yield f"{_name(seen, job)} ended although it was leased (event {event.number})"
        elif event.kind == "job.moved" and facts["was"] == "active" and job in live:
            yield f"{_name(seen, job)} left `active` although it was leased (event {event.number})"


def i3_best_first(seen: Outcome) -> Findings:
    """No claim passes over a better job that nothing holds back."""
    for event in seen.history.of("claim.judged"):
        for passed in event.facts["passed_over"]:
            if passed["held_by"] is None:
                taken = ", ".join(_name(seen, job) for job in event.facts["jobs"]) or "nothing"
                yield (
                    f"a claim of {event.subject} took {taken} and passed over {_name(seen, passed['job'])}, "
                    f"which was free and is {passed['state']} now (event {event.number})"
                )


def i4_attempts_are_starts(seen: Outcome) -> Findings:
    """An attempt counts when its handler starts; release and deferral count none."""
    counted: Counter[UUID | str] = Counter()
    claims: dict[Claim, Event] = {}
    started: Counter[Claim] = Counter()
    excused: set[Claim] = set()
    for event in seen.history.of("claimed", "started", "settled", "answer.lost"):
        job, facts = event.subject, event.facts
        if event.kind == "claimed":
            claims[job, facts["token"]] = event
            counted[job] += 1
            if facts["attempt"] != counted[job]:
                yield f"{_name(seen, job)} was claimed as attempt {facts['attempt']}, and it is {counted[job]}"
        elif event.kind == "started":
            started[job, facts["token"]] += 1
        elif event.kind == "settled" and facts["accepted"]:
            counted[job] -= facts["outcome"] in UNCOUNTED
            if _ended_before_its_start(facts):
                excused.add((job, facts["token"]))
        elif event.kind == "answer.lost" and job in CLAIMING:
            excused |= {claim for claim, made in claims.items() if made.process == event.process}
    # A process that died, or stood still for longer than a lease, did not come to the start (docs/decisions/0006).
    gone = {event.process.partition(":")[0] for event in seen.history.of("process.died", "process.stalled")}
    for claim, event in claims.items():
        times = started[claim]
        is_excused = claim in excused or event.process.partition(":")[0] in gone or _is_of_a_batch(event, claims)
        if times > 1 or (times == 0 and not is_excused and seen.is_drained):
            yield f"attempt {event.facts['attempt']} of {_name(seen, claim[0])} started {times} times"
    for record in seen.observer.records.values():
        if record.attempt != counted[record.id]:
            yield f"{_name(seen, record.id)} has {record.attempt} attempts, and {counted[record.id]} were counted"


def _ended_before_its_start(facts: dict[str, object]) -> bool:
    """Given back at a shutdown, cancelled before the handler, or with a payload that no handler gets."""
    return facts["outcome"] in ("released", "cancelled") or str(facts["failure"]).startswith("validation")


def _is_of_a_batch(event: Event, claims: dict[Claim, Event]) -> bool:
    """Claimed together with others: it may lose its lease before its turn (docs/decisions/0006)."""
    return bool(sum(token == event.facts["token"] for _, token in claims) > 1)


def i5_failures_are_kept(seen: Outcome) -> Findings:
    """Every failed attempt stands on the job, with its class and text."""
    failures: Counter[UUID | str] = Counter()
    for event in seen.history.of("settled"):
        facts = event.facts
        if not facts["accepted"] or facts["failure"] is None:
            continue
        failures[event.subject] += 1
        if len(facts["attempts_after"]) != facts["attempts_before"] + 1 or facts["last"] != facts["failure"]:
            yield f"{_name(seen, event.subject)} failed with {facts['failure']}: its last attempt is {facts['last']}"
    for record in seen.observer.records.values():
        kept = [a for a in record.attempts if a.error_class is not None and a.message and a.worker]
        if len(kept) != failures[record.id] or any(a.finished_at < a.started_at for a in kept):
            yield f"{_name(seen, record.id)} failed {failures[record.id]} times, and {len(kept)} are kept"


def i6_follow_ups_come_with_the_settlement(seen: Outcome) -> Findings:
    """The follow-ups of an attempt exist exactly when its settlement was carried out."""
    asked: Counter[tuple[str, str]] = Counter()
    for event in seen.history.of("settled"):
        if event.facts["accepted"] and event.facts["follow_ups"]:
            asked[str(event.subject), str(event.facts["token"])] += event.facts["follow_ups"]
    payloads = [e.facts["payload"] for e in seen.history.of("job.made") if e.facts["by"] != "redrive"]
    made = Counter((p["parent"], p["token"]) for p in payloads if "parent" in p)
    for key in asked | made:
        if asked[key] != made[key]:
            parent = _name(seen, UUID(key[0]))
            yield f"{parent} was settled with {asked[key]} follow-ups, and there are {made[key]}"


def i7_a_wake_up_outlives_its_jobs(seen: Outcome) -> Findings:
    """When a delivery ends and its wake-up is deleted, what it claimed is settled, or there is another wake-up."""
    queue_of: dict[str, str] = {}
    held: dict[str, dict[Claim, Event]] = defaultdict(dict)
    claimed_by: dict[Claim, str] = {}
    deleted: set[str] = set()
    running: set[Claim] = set()
    for event in seen.history.events:
        task, facts = event.process, event.facts
        match event.kind:
            case "message.received":
                queue_of[f"{task}:{event.subject}"] = facts["queue"]
            case "claimed":
                claim = (event.subject, facts["token"])
                held[task][claim] = event
                claimed_by[claim] = task
                if task in deleted:
                    job = _name(seen, event.subject)
                    yield f"{task} claimed {job} after its wake-up was deleted (event {event.number})"
            case "settled":
                claim = (event.subject, facts["token"])
                owner = claimed_by.get(claim, "")
                if facts["accepted"] or owner == task:
                    held[owner].pop(claim, None)
            case "message.put" if facts["queue"] == queue_of.get(task):
                held[task].clear()  # a wake-up that takes the place of this one
            case "wake_up.dropped" if event.subject == queue_of.get(task):
                held[task].clear()
            case "started":
                running.add((event.subject, facts["token"]))
            case "answer.lost" if event.subject in CLAIMING:
                # Nobody knows that these are claimed; their leases end by themselves.
                held[task] = {claim: made for claim, made in held[task].items() if claim in running}
            case "message.deleted" if task in queue_of:
                deleted.add(task)
                for (running_job, _), claimed in held.pop(task, {}).items():
                    # A run that is too long is given up, and its lease ends by itself.
                    if event.at - claimed.at < LONGEST_RUN.total_seconds():
                        yield f"{event.subject} was deleted while {_name(seen, running_job)} ran (event {event.number})"


def i8_everything_is_processed(seen: Outcome) -> Findings:
    """After the last fault everything ends within a bounded time."""
    if not seen.is_drained:
        stopped, end = seen.history.events[-1].at, seen.scenario.faults.end
        yield f"at {stopped:.0f} s (the faults ended at {end:.0f} s): {'; '.join(seen.left[:5])}"


def i9_notifications_once(seen: Outcome) -> Findings:
    """What was answered 202 is recorded, and once."""
    recorded = Counter(event.subject for event in seen.history.of("notification.recorded"))
    yield from (f"{change} was recorded {times} times" for change, times in recorded.items() if times > 1)
    for event in seen.history.of("notification.accepted"):
        if not recorded[event.subject] and seen.is_drained:
            yield f"{event.subject} was answered 202 and never recorded"


def i10_limits_hold_in_every_window(seen: Outcome) -> Findings:
    """In no window, by the database's clock, does more start than its limit. Starts are counted together for as long
    as the window keeps its length: what a longer one would have had to remember is forgotten."""
    starts: dict[tuple[str, timedelta], list[tuple[float, int]]] = defaultdict(list)
    for event in seen.history.of("claimed", "permits.taken"):
        facts = event.facts
        counted = [(facts["queue"], facts["rate"], facts["cost"])]
        if event.kind == "claimed":
            counted.append((f"key {facts['limit_key']}", facts["key_rate"], 1))
        for name, rate, cost in counted:
            if rate is None:
                continue
            before = starts[name, rate.window]
            before.append((event.clock, cost))
            since = event.clock - rate.window.total_seconds()
            used = sum(n for at, n in before if at > since + 1e-6)
            if used > rate.limit:
                yield f"{name}: {used} of {rate.limit} in {rate.window} (event {event.number})"


def caps_hold(seen: Outcome) -> Findings:
    """No more run at once than a queue, a limit key or a concurrency key lets."""
    for event in seen.history.of("claimed"):
        for beside, limit in (("beside", "limit"), ("key_beside", "key_limit"), ("lane_beside", "lane_limit")):
            most = event.facts.get(limit)
            if most is not None and event.facts[beside] >= most:
                yield (
                    f"{_name(seen, event.subject)} started beside {event.facts[beside]}, and {limit} is {most} "
                    f"(event {event.number})"
                )


def blocks_hold(seen: Outcome) -> Findings:
    """After a 429 nothing of its key, or of its queue, starts before the time is over."""
    until: dict[str, float] = {}
    for event in seen.history.of("settled", "claimed"):
        facts = event.facts
        if event.kind == "settled":
            if facts["accepted"] and facts["block"]:
                name = facts["limit_key"] or facts["queue"]
                until[name] = max(until.get(name, 0.0), event.clock + facts["block"])
            continue
        for name in (facts["limit_key"], facts["queue"]):
            if name is not None and event.clock < until.get(name, 0.0) - 1e-6:
                yield f"{_name(seen, event.subject)} started while {name} was blocked (event {event.number})"


def orders_hold(seen: Outcome) -> Findings:
    """Of an ordering key one runs at a time, retries included, and in the order in which they became due."""
    for event in seen.history.of("claimed"):
        holder, first = event.facts.get("lane_held_by"), event.facts.get("not_first_to")
        if holder is not None:
            yield f"{_name(seen, event.subject)} started while {_name(seen, holder)} had its key (event {event.number})"
        if first is not None:
            yield f"{_name(seen, event.subject)} started before {_name(seen, first)} of its key (event {event.number})"


def nothing_starts_that_must_not(seen: Outcome) -> Findings:
    """No job of a paused queue, and none past its deadline."""
    for event in seen.history.of("claimed"):
        if event.facts["paused"] or event.facts["late"]:
            what = "its queue was paused" if event.facts["paused"] else "its deadline had passed"
            yield f"{_name(seen, event.subject)} started, and {what} (event {event.number})"


def dependencies_hold(seen: Outcome) -> Findings:
    """A job starts when all that it depends on has ended, and ended well unless it asked otherwise."""
    ended: dict[UUID | str, str] = {}
    for event in seen.history.of("job.ended", "claimed"):
        if event.kind == "job.ended":
            ended[event.subject] = event.facts["state"]
            continue
        job = seen.observer.asked.get(event.subject) if isinstance(event.subject, UUID) else None
        redriven = job is not None and _record_is_redriven(seen, event.subject)
        for other in job.depends_on if job is not None and not redriven else ():
            fine = ("completed",) if job and job.if_dependency_fails is not IfDependencyFails.RUN else ENDED_NAMES
            if ended.get(other) not in fine:
                state = ended.get(other, "not ended")
                yield f"{_name(seen, event.subject)} started; {_name(seen, other)} is {state} (event {event.number})"


def _record_is_redriven(seen: Outcome, job: UUID | str) -> bool:
    record = seen.observer.records[job] if isinstance(job, UUID) else None
    return record is not None and record.redrive_of is not None


def batches_end_once(seen: Outcome) -> Findings:
    """A batch's counts are its jobs' ends, and its callback is made once, after the last of them."""
    ended = {event.subject: event for event in seen.history.of("job.ended")}
    for made in seen.history.of("batch.made"):
        batch_id = made.subject
        members = [event for event in seen.history.of("job.made") if event.facts["batch"] == batch_id]
        called = [r for r in seen.observer.records.values() if r.correlation_id == str(batch_id)]
        called = [record for record in called if record.redrive_of is None]
        if len(called) > 1 or (seen.is_drained and len(called) != made.facts["callback"]):
            yield f"batch {_name(seen, batch_id)} made {len(called)} callbacks"
        record = seen.observer.store.batch(batch_id) if isinstance(batch_id, UUID) else None
        if record is None:
            yield f"batch {_name(seen, batch_id)} has vanished"
            continue
        states = Counter(ended[event.subject].facts["state"] for event in members if event.subject in ended)
        counts = {"completed": record.completed, "dead": record.dead, "cancelled": record.cancelled}
        if record.total != len(members) or any(states[name] != n for name, n in counts.items()):
            yield f"batch {_name(seen, batch_id)} of {len(members)} ended as {dict(states)} and counts {record}"
        births = {event.subject: event.number for event in seen.history.of("job.made")}
        last = max((ended[e.subject].number for e in members if e.subject in ended), default=0)
        if any(births[one.id] < last for one in called):
            yield f"the callback of batch {_name(seen, batch_id)} came before its last job had ended"


def unique_keys_hold(seen: Outcome) -> Findings:
    """One job of an idempotency key, one live job of a singleton key, one in a throttle's window."""
    keys: Counter[tuple[str, str]] = Counter()
    live: dict[tuple[str, str], set[UUID | str]] = defaultdict(set)
    last: dict[tuple[str, str], float] = {}
    for event in seen.history.of("job.made", "job.ended"):
        facts = event.facts
        if event.kind == "job.ended":
            for jobs in live.values():
                jobs.discard(event.subject)
            continue
        unique = facts["unique"]
        if facts["key"] is not None:
            keys[facts["queue"], facts["key"]] += 1
        if isinstance(unique, Singleton):
            jobs = live[facts["queue"], unique.key]
            jobs.add(event.subject)
            if len(jobs) > 1:
                yield f"{len(jobs)} jobs with the singleton key {unique.key} live (event {event.number})"
        if isinstance(unique, Throttle) and facts["by"] != "redrive":
            key = (facts["queue"], unique.key)
            if event.clock < last.get(key, -1.0):
                yield f"two jobs with the throttle key {unique.key} within its window (event {event.number})"
            last[key] = event.clock + unique.window.total_seconds() - 1e-6
    yield from (f"{times} jobs with the idempotency key {key}" for key, times in keys.items() if times > 1)


def effects_happen_once(seen: Outcome) -> Findings:
    """One effect for an effect id. A worker that stood still for longer than its lease, right before it sent, may send
    beside the one that took over: no lease can prevent that."""
    effects: dict[UUID, list[Event]] = defaultdict(list)
    for event in seen.history.of("effect"):
        effects[event.facts["effect"]].append(event)
    for effect_id, events in effects.items():
        if len(events) > 1 and not any(event.facts["stale"] for event in events):
            numbers = ", ".join(str(event.number) for event in events)
            yield f"the effect of {_name(seen, effect_id)} happened {len(events)} times (event {numbers})"


def dead_letters_are_one_each(seen: Outcome) -> Findings:
    """Every dead job has its dead letter, and each dead letter is told to the operator."""
    letters = Counter(letter.job_id for letter in seen.observer.store.letters if letter.job_id is not None)
    dead = {event.subject for event in seen.history.of("job.ended") if event.facts["state"] == "dead"}
    for job in dead:
        if letters[job] != 1:  # type: ignore[index]
            yield f"{_name(seen, job)} is dead and has {letters[job]} dead letters"  # type: ignore[index]
    told = sum(event.facts["queue"] == DEAD_LETTERS for event in seen.history.of("job.made"))
    redriven = sum(r.redrive_of is not None for r in seen.observer.records.values() if r.queue == DEAD_LETTERS)
    expected = sum(letter.queue != DEAD_LETTERS for letter in seen.observer.store.letters)
    if told - redriven != expected:
        yield f"{expected} dead letters, and {told - redriven} jobs that tell of them"


def schedules_make_every_slot(seen: Outcome) -> Findings:
    """A schedule that catches up on all has one job of each slot that has passed, and no other."""
    made = Counter(e.facts["key"] for e in seen.history.of("job.made") if "schedule" in e.facts["payload"])
    for added in seen.history.of("schedule.added"):
        saved = [e for e in seen.history.of("schedule.saved") if e.subject == added.subject]
        if added.facts["catch_up"] != "all" or not saved:
            continue
        slot, end = added.facts["next_run_at"], saved[-1].facts["next_run_at"]
        plan, _ = planned(added.facts["cron"], "UTC", slot - timedelta(minutes=1))
        while slot < end:
            if made[slot_key(str(added.subject), slot)] != 1:
                yield f"slot {slot} of {added.subject} made {made[slot_key(str(added.subject), slot)]} jobs"
            slot = plan.next_after(slot)


def progress_survives(seen: Outcome) -> Findings:
    """What an attempt saved is there for the next one, and for a redrive."""
    saved: dict[UUID | str, int] = defaultdict(int)
    expected: dict[Claim, int] = {}
    for event in seen.history.of("progress.saved", "progress.found", "redriven", "claimed"):
        match event.kind:
            case "redriven":
                saved[event.facts["made"]] = saved[event.subject]
            case "progress.saved":
                saved[event.subject] = event.facts["done"]
            case "claimed":
                expected[event.subject, event.facts["token"]] = saved[event.subject]
            case _ if event.facts["done"] < expected[event.subject, event.facts["token"]]:
                found = f"{event.facts['done']} of {expected[event.subject, event.facts['token']]} saved parts"
                yield f"{_name(seen, event.subject)} found {found} (event {event.number})"


INVARIANTS: dict[str, Callable[[Outcome], Findings]] = {
    "I1": i1_every_job_ends_once,
    "I2": i2_one_live_lease,
    "I3": i3_best_first,
    "I4": i4_attempts_are_starts,
    "I5": i5_failures_are_kept,
    "I6": i6_follow_ups_come_with_the_settlement,
    "I7": i7_a_wake_up_outlives_its_jobs,
    "I8": i8_everything_is_processed,
    "I9": i9_notifications_once,
    "I10": i10_limits_hold_in_every_window,
    "caps": caps_hold,
    "blocks": blocks_hold,
    "orders": orders_hold,
    "starts": nothing_starts_that_must_not,
    "dependencies": dependencies_hold,
    "batches": batches_end_once,
    "unique keys": unique_keys_hold,
    "effects": effects_happen_once,
    "dead letters": dead_letters_are_one_each,
    "schedules": schedules_make_every_slot,
    "progress": progress_survives,
}


def check(seen: Outcome) -> list[Violation]:
    """Every violation of every invariant."""
    return [Violation(name, text) for name, invariant in INVARIANTS.items() for text in invariant(seen)]


def _name(seen: Outcome, subject: UUID | str) -> str:
    return seen.history.name(subject)
