"""Dead jobs: what killed them, and what to do before they run again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from shared.admin.diagnosis import refusals
from shared.admin.diagnosis.circumstances import MOST_COUNTED, Circumstances
from shared.admin.diagnosis.effect import (
    effect_of,
    has_just_looked,
    lasted,
    redrive_is,
    sender,
    tell_unfinished,
    why_unknown,
)
from shared.admin.diagnosis.words import (
    clock,
    count,
    ended,
    key_of,
    once,
    peer,
    place,
    sends,
    span,
    step,
    tally,
    thing,
    upper,
)
from shared.admin.models.diagnosis import Action, Diagnosis, Effect, Step
from shared.engine.job import Attempt, ErrorClass, JobRecord, JobState

_DEPENDENCY = re.compile(r"job ([0-9a-f-]{36}), which it depends on, ended as (\w+)")
_Told = tuple[str, list[str], list[Step], tuple[str, ...]]


def dead(job: JobRecord, around: Circumstances) -> Diagnosis:
    letter = around.letter
    if letter is not None and letter["redriven_at"] is not None:
        return _redriven(job, around)
    if letter is not None and letter["discarded_at"] is not None:
        return _discarded(job, around)
    effect = effect_of(job, around)
    headline, why, steps, accounts = _BY_CLASS[job.error_class or ErrorClass.UNKNOWN](job, around)
    why = [*why, *why_unknown(job, around), *_holds_up(job, around)]
    again = step(f"Redrive it: {_safely(job, around)}", Action.REDRIVE, job.id)
    if not any(step.action is Action.REDRIVE for step in steps):
        steps = [*steps, again]
    give_up = step("Not wanted any more: discard it.", Action.DISCARD, letter["id"] if letter else job.id)
    if not any(step.action is Action.DISCARD for step in steps):
        steps = [*steps, give_up]
    return Diagnosis(
        label="dead", tone="bad", headline=headline, why=why, next=steps,
        tell=tell_unfinished(job, effect), effect=effect, accounts=list(accounts),
    )  # fmt: skip


def _redriven(job: JobRecord, around: Circumstances) -> Diagnosis:
    letter = around.letter or {}
    chain = [row for row in around.related if row["relation"] == "redrivenAs"]
    row = chain[-1] if chain else {"id": letter["redriven_job_id"], "state": None}
    state = JobState(row["state"]) if row["state"] else None
    at, by = clock(letter["redriven_at"]), letter["redriven_by"]
    words = state.value if state is not None else "no longer kept"
    effect = Effect.DONE if state is JobState.COMPLETED else effect_of(job, around)
    tell = (
        "sent by the job that it was redriven as"
        if effect is Effect.DONE
        else f"see job {row['id']}, which it runs as now"
    )
    return Diagnosis(
        label="dead, redriven", tone="plain", headline=f"Redriven at {at} by {by} as job {row['id']}: {words}",
        why=["Everything about it is told by that job."],
        next=[step("Look at the job that it runs as now.", Action.SHOW_JOB, row["id"])],
        tell=tell, effect=effect,
    )  # fmt: skip


def _discarded(job: JobRecord, around: Circumstances) -> Diagnosis:
    letter, effect = around.letter or {}, effect_of(job, around)
    at = clock(letter["discarded_at"])
    reason = _BY_CLASS[job.error_class or ErrorClass.UNKNOWN](job, around)[0]
    return Diagnosis(label="dead, discarded", tone="plain", headline=f"Given up at {at} by {letter['discarded_by']}",
                     why=[f"It died. {reason}.", *why_unknown(job, around)],
                     next=[step("Nothing. It cannot be redriven any more.")],
                     tell=tell_unfinished(job, effect, is_over=True), effect=effect)  # fmt: skip


def _holds_up(job: JobRecord, around: Circumstances) -> list[str]:
    if not around.behind or around.holder != job.id:
        return []
    key = (job.lane or "").split(":", 2)[-1]
    more = "at least " if around.behind >= MOST_COUNTED else ""
    wait = "waits" if around.behind == 1 else "wait"
    return [
        f"{more}{count(around.behind, 'job')} of ordering key {key} {wait} behind it until it is redriven or discarded."
    ]


def _not_sent(job: JobRecord, around: Circumstances, short: str) -> str:
    if not sends(job):
        return f"Not done: {short}"
    if effect_of(job, around) is Effect.NONE:
        return f"Not sent: {short}"
    return f"{'Most likely not' if has_just_looked(job) else 'May have been'} sent: {short}"


def _last(job: JobRecord) -> Attempt | None:
    return next((one for one in reversed(job.attempts) if one.error_class is not None), None)


def _validation(job: JobRecord, around: Circumstances) -> _Told:
    last = _last(job)
    if last is None:
        short, why = "it is not what its queue takes", [job.error_message or ""]
    else:
        refusal = refusals.of_request(job, last)
        short, why = refusal.short, list(refusal.why)
    anew = step("Correct it where it was made and enqueue it anew.", Action.ENQUEUE_ANEW, job.queue, job.payload)
    give_up = step("Then discard this one.", Action.DISCARD, _letter_id(job, around))
    again = step("Redrive it only if it was the other side that was wrong.", Action.REDRIVE, job.id)  # fmt: skip
    return _not_sent(job, around, short), why, [anew, give_up, again], ()


def _letter_id(job: JobRecord, around: Circumstances) -> str:
    return str(around.letter["id"] if around.letter else job.id)


def _auth(job: JobRecord, around: Circumstances) -> _Told:
    last = _last(job)
    if last is None:
        return (
            _not_sent(job, around, "it was refused for who we are"),
            [],
            [step("See what lacks.", Action.DOCTOR)],
            (),
        )
    refusal = refusals.of_identity(job, last, around)
    return _not_sent(job, around, refusal.short), list(refusal.why), list(refusal.steps), refusal.accounts


def _rate_limit(job: JobRecord, around: Circumstances) -> _Told:
    until = max((at for at in (around.key_blocked_until, around.queue_blocked_until) if at is not None), default=None)
    times = f"{once(len(job.attempts))} within {span(lasted(job))}"
    why = [f"{upper(peer(job))} asked to slow down (429) {times}, longer than the retries last."]
    if until is not None and until > around.now:
        why.append(f"It takes nothing before {clock(until)}: a redrive waits until then by itself.")
    steps = [step("Redrive it; where many died so, slowly: with a rate.", Action.REDRIVE, job.id),
             step("If it comes again: lower the queue's limits.", Action.SHOW_LIMITS, job.queue)]  # fmt: skip
    return _not_sent(job, around, f"{peer(job)} was too busy"), why, steps, ()


def _away(job: JobRecord, around: Circumstances) -> _Told:
    why = [f"{upper(peer(job))} failed within {span(lasted(job))}: {tally(job, job.attempts)}."]
    again = step(f"When it is back, redrive: {_safely(job, around)}", Action.REDRIVE, job.id)
    last = _last(job)
    short = ended(job, last) if last is not None else f"{peer(job)} could not be reached"
    return _not_sent(job, around, f"{short}, until the retries ended"), why, [again], ()


def _safely(job: JobRecord, around: Circumstances) -> str:
    return f"{redrive_is(job)}." if effect_of(job, around) is Effect.POSSIBLE else "nothing was sent."


def _uncertain(job: JobRecord, around: Circumstances) -> _Told:
    _, why, steps, accounts = _away(job, around)
    last = _last(job)
    if has_just_looked(job) and last is not None:
        return f"Most likely not sent: {ended(job, last)}, until the retries ended", why, steps, accounts
    again = step(f"Redrive it: {redrive_is(job)}.", Action.REDRIVE, job.id)
    if sender(job) == "workflow":
        again = step(
            "Look into the chat. Not there: redrive it. There: discard it.",
            Action.REDRIVE,
            job.id,
        )
    return f"May have been sent: an answer was lost, and nobody could look for the {thing(job)}", why, [again], accounts


def _worker_lost(job: JobRecord, around: Circumstances) -> _Told:
    lost = [one for one in job.attempts if one.error_class is ErrorClass.WORKER_LOST]
    if not lost:
        why = [job.error_message or "The host gave its message up before it could start."]
        return _not_sent(job, around, "it never ran"), why, [_logs(job)], ()
    times = ", ".join(clock(one.finished_at) for one in lost[-3:])
    share = f"{len(lost)} of {count(len(job.attempts), 'attempt')}"
    why = [f"{share} ended because the worker died or stood still, last at {times}."]
    others = tally(job, [one for one in job.attempts if one.error_class is not ErrorClass.WORKER_LOST])
    why += [f"The others: {others}."] if others else []
    return _not_sent(job, around, "its worker died or stood still too often"), why, [_logs(job, lost[-1])], ()


def _logs(job: JobRecord, attempt: Attempt | None = None) -> Step:
    where = f" of {attempt.worker}" if attempt is not None else ""
    return step(
        f"First read the log{where} (memory, time out, restart), or it dies again.",
        Action.LOOK_AT_LOGS,
        job.id,
    )


def _unknown(job: JobRecord, around: Circumstances) -> _Told:
    why = [f"The handler of {job.queue} failed {once(len(job.attempts))} with an error that it does not know."]
    logs = step(
        "Read the error below and the log, have it mended and deployed, then redrive.",
        Action.LOOK_AT_LOGS,
        job.id,
    )
    return _not_sent(job, around, "its handler failed"), why, [logs], ()


def _expired(job: JobRecord, around: Circumstances) -> _Told:
    until = clock(job.expires_at) if job.expires_at is not None else "its deadline"
    failed = [one for one in job.attempts if one.error_class is not None]
    if failed:
        why = [f"It failed {once(len(failed))}: {tally(job, failed)}. The next try would have been too late."]
    else:
        why = [_not_started(job, around)]
    looks = f" {upper(redrive_is(job))}." if effect_of(job, around) is Effect.POSSIBLE else ""
    again = step(f"Still wanted: redrive it. It has no deadline then.{looks}", Action.REDRIVE, job.id)
    return _not_sent(job, around, f"its deadline, {until}, came first"), why, [again], ()


def _not_started(job: JobRecord, around: Circumstances) -> str:
    held = (job.result or {}).get("heldBack") or {}
    by = held.get("by")
    if by == "pause":
        who = f" by {around.paused_by} at {clock(around.paused_at)}" if around.paused_at and around.paused_by else ""
        return f"It did not start: the queue {job.queue} was paused{who}."
    if by == "key":
        return f"It did not start: it waited for {_key_in_words(job, held)}."
    if by == "limit":
        return f"It did not start: {peer(job)} had asked the whole queue to wait (429)."
    if by == "jobs":
        return "It did not start: it waited for other jobs that had not ended."
    if by == "later":
        return f"It did not start: it was put off{': ' + held['reason'] if held.get('reason') else ''}."
    return f"It did not start: no worker of {job.queue} was free in time."


def _key_in_words(job: JobRecord, held: dict[str, Any]) -> str:
    if held.get("key") != job.limit_key:
        holder = f" (job {held['holder']})" if held.get("holder") else ""
        return f"its turn behind others of key {(job.lane or '').split(':', 2)[-1]}{holder}"
    blocked = " (429)" if held.get("blockedUntil") else ""
    return f"{place(job) or key_of(job)}, which took no more then{blocked}"


def _dependency(job: JobRecord, around: Circumstances) -> _Told:
    other, state = dependency_of(job)
    if other is None:
        return _not_sent(job, around, "a job that it depends on did not succeed"), [job.error_message or ""], [], ()
    now = around.dependency_state
    steps = [step("Look at that job first.", Action.SHOW_JOB, other)]
    done = now is JobState.COMPLETED
    again = (
        "Redrive this one."
        if done
        else "A redrive sends it although that job has not succeeded: do it only if it makes sense alone."
    )
    steps.append(step(again, Action.REDRIVE, job.id))
    why = [f"It waited for job {other}, which ended {state}."]
    return _not_sent(job, around, f"job {other}, which it depends on, ended {state}"), why, steps, ()


def dependency_of(job: JobRecord) -> tuple[UUID | None, str]:
    """The job whose end ended this one, and how it had ended (the texts are those of queue.resolve_most)."""
    said = job.error_message if job.error_class is ErrorClass.DEPENDENCY else (job.result or {}).get("reason")
    found = _DEPENDENCY.match(said) if isinstance(said, str) else None
    return (UUID(found[1]), found[2]) if found else (None, "")


_BY_CLASS: dict[ErrorClass, Callable[[JobRecord, Circumstances], _Told]] = {
    ErrorClass.VALIDATION: _validation,
    ErrorClass.AUTH: _auth,
    ErrorClass.RATE_LIMIT: _rate_limit,
    ErrorClass.NETWORK: _away,
    ErrorClass.TIMEOUT: _away,
    ErrorClass.UNCERTAIN: _uncertain,
    ErrorClass.WORKER_LOST: _worker_lost,
    ErrorClass.UNKNOWN: _unknown,
    ErrorClass.EXPIRED: _expired,
    ErrorClass.DEPENDENCY: _dependency,
}
