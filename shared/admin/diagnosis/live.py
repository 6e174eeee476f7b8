"""Jobs that have not ended: what they wait for, until when, and whether anybody can do something about it."""

from __future__ import annotations

from datetime import datetime, timedelta

from shared.admin.diagnosis.circumstances import MOST_COUNTED, Circumstances
from shared.admin.diagnosis.effect import effect_of, redrive_is, unknown_since
from shared.admin.diagnosis.words import (
    clock,
    count,
    ended,
    goes,
    key_of,
    once,
    peer,
    place,
    sends,
    step,
    tally,
    thing,
    upper,
)
from shared.admin.models.diagnosis import Action, Diagnosis, Effect, Step
from shared.engine.job import ErrorClass, JobRecord, JobState

#: Every so often the rescue timer takes back what dead workers held, and the relay makes due jobs ready.
RESCUE = timedelta(seconds=30)
#: A job that is ready for longer is not just on its way to a worker.
SOON = timedelta(seconds=60)


def live(job: JobRecord, around: Circumstances) -> Diagnosis:
    if job.state is JobState.ACTIVE:
        return _active(job, around)
    if job.state is JobState.SCHEDULED and around.identity is not None:
        return _parked(job, around)
    if job.state is JobState.WAITING:
        found = _waiting(job, around)
    elif around.is_paused:
        return _paused(job, around)
    else:
        found = _scheduled(job, around) if job.state is JobState.SCHEDULED else _ready(job, around)
    return _with_pause(found, job, around) if around.is_paused else found


def _told(
    job: JobRecord, around: Circumstances, label: str, headline: str, why: list[str], steps: list[Step],
    *, bad: bool = False, accounts: tuple[str, ...] = (),
) -> Diagnosis:  # fmt: skip
    effect = effect_of(job, around)
    tell = "not sent yet" if sends(job) else "not done yet"
    if effect is Effect.POSSIBLE:
        tell = f"may have been sent; {redrive_is(job, 'the next attempt')}"
    elif not bad:
        tell += "; it goes on by itself"
    return Diagnosis(
        label=label, tone="bad" if bad else "waits", headline=headline, why=why, next=steps, tell=tell, effect=effect,
        accounts=list(accounts),
    )  # fmt: skip


def _nothing(text: str = "Nothing: it goes on by itself.") -> Step:
    return step(text)


def _run_now(job: JobRecord) -> Step:
    return step("Run it now instead.", Action.RETRY, job.id)


def _pause_in_words(job: JobRecord, around: Circumstances) -> str:
    at = f" since {clock(around.paused_at)}" if around.paused_at is not None else ""
    by = f" by {around.paused_by}" if around.paused_by is not None else ""
    return f"The queue {job.queue} is paused{at}{by}."


def _resume(job: JobRecord) -> Step:
    return step("Let the queue go on.", Action.RESUME_QUEUE, job.queue)


def _paused(job: JobRecord, around: Circumstances) -> Diagnosis:
    why = [_pause_in_words(job, around)]
    if job.state is JobState.SCHEDULED and job.run_at > around.now:
        why.append(f"It is not due before {clock(job.run_at)} anyway.")
    if job.attempts:
        why.append(_failures(job))
    return _told(job, around, "paused", why[0].rstrip("."), [*why[1:], _deadline(job)], [_resume(job)], bad=True)


def _with_pause(found: Diagnosis, job: JobRecord, around: Circumstances) -> Diagnosis:
    return found.model_copy(
        update={"why": [*found.why, _pause_in_words(job, around)], "next": [*found.next, _resume(job)]}
    )


def _deadline(job: JobRecord) -> str:
    return f"It dies at {clock(job.expires_at)} if it has not started by then." if job.expires_at else ""


def _failures(job: JobRecord) -> str:
    failed = [one for one in job.attempts if one.error_class is not None]
    return f"So far it failed {once(len(failed))}: {tally(job, failed)}."


def _parked(job: JobRecord, around: Circumstances) -> Diagnosis:
    who = around.identity or ""
    since = f" since {clock(around.identity_since)}" if around.identity_since is not None else ""
    account = "@" in who
    why = [f"It waits{since}: {around.alert_reason}" if around.alert_reason else f"It waits{since}.",
           "No attempt is used up. Once there is a token it goes on by itself, and not before.",
           _deadline(job)]  # fmt: skip
    steps = []
    if account:
        steps.append(step("Sign the account in.", Action.SIGN_IN, who))
    elif around.remedy:
        steps.append(step(around.remedy, Action.DOCTOR))
    if around.alert_id is not None:
        steps.append(step("Look at the alert.", Action.SHOW_ALERT, around.alert_id))
    if around.alert_id is None:
        steps = [_nothing("Nothing: the token is there again, and it goes on by itself within seconds.")]
    return _told(
        job, around, "parked", f"Parked: no token for {who}", why, steps, bad=True, accounts=(who,) if account else ()
    )


def _blocked_until(around: Circumstances) -> datetime | None:
    """Until when what the job needs is closed by a 429."""
    found = [at for at in (around.key_blocked_until, around.queue_blocked_until) if at is not None and at > around.now]
    return max(found, default=None)


def _throttled(job: JobRecord, around: Circumstances, until: datetime) -> Diagnosis:
    by_key = around.key_blocked_until is not None and around.key_blocked_until > around.now
    whom = key_of(job) if by_key else "this queue"
    own = bool(job.attempts) and job.attempts[-1].error_class is ErrorClass.RATE_LIMIT
    asked = f"{upper(peer(job))} answered 429 to {'its last attempt' if own else 'another job'}"
    why = [f"{asked}: nothing {goes(job)} {place(job) or whom} before that time."]
    if not by_key:
        why = [f"{asked}: the whole queue keeps still until then."]
    asked_until = until
    if job.state is JobState.SCHEDULED:
        until = max(until, job.run_at)
    at, look = clock(until), step("See what else is closed.", Action.SHOW_LIMITS, job.queue)
    if job.expires_at is not None and job.expires_at <= until:
        anew = step("Still wanted: tell them another way, or enqueue it anew with a later deadline or none.",
                    Action.ENQUEUE_ANEW, job.queue, job.payload)  # fmt: skip
        headline = f"Will die of its deadline at {clock(job.expires_at)}: it cannot start before {at} (429)"
        cancel = step("Then cancel this one, or somebody redrives it when it has died.", Action.CANCEL, job.id)
        return _told(job, around, "throttled", headline, why, [anew, cancel, look], bad=True)
    headline, no_help = "Waits", "Run now cannot help"
    if until > asked_until:
        headline, no_help = f"Waits until {at}", f"Run now cannot help before {clock(asked_until)}"
    steps = [_nothing(f"Nothing: it runs by itself at about {at}. {no_help}."), look]
    headline = f"{headline}: {peer(job)} asked to wait until {clock(asked_until)} for {whom} (429)"
    return _told(job, around, "throttled", headline, [*why, _deadline(job)], steps)


def _scheduled(job: JobRecord, around: Circumstances) -> Diagnosis:
    until, at = _blocked_until(around), clock(job.run_at)
    if until is not None:
        return _throttled(job, around, until)
    last = job.attempts[-1] if job.attempts else None
    held = around.holder is not None and around.holder != job.id
    if last is not None and last.error_class is not None and around.reason is None:
        steps = [_nothing(f"Nothing: it tries again by itself at {at}."), *([] if held else [_run_now(job)])]
        headline = f"Tries again at {at}: {ended(job, last)}"
        label = "throttled" if last.error_class is ErrorClass.RATE_LIMIT else "retrying"
        return _told(job, around, label, headline, [_failures(job), *_maybe_sent(job), _deadline(job)], steps)
    if around.reason:
        steps = [_nothing(f"Nothing: it goes on by itself at {at}."),
                 step("See how full the limits are.", Action.SHOW_LIMITS, job.queue)]  # fmt: skip
        return _told(job, around, "put off", f"Put off until {at}: {around.reason}", [_deadline(job)], steps)
    steps = [_nothing(f"Nothing: it runs by itself at {at}."), *([] if held else [_run_now(job)])]
    return _told(job, around, "scheduled", f"Runs at {at}", [_deadline(job)], steps)


def _maybe_sent(job: JobRecord) -> list[str]:
    return [f"It may have been sent: {redrive_is(job, 'the next attempt')}."] if unknown_since(job) else []


def _waiting(job: JobRecord, around: Circumstances) -> Diagnosis:
    if around.waits_at == "":
        return _waits_for_jobs(job, around)
    if around.waits_at is not None and around.waits_at == job.lane:
        return _waits_in_lane(job, around)
    until = _blocked_until(around)
    if until is not None:
        return _throttled(job, around, until)
    what = place(job) or key_of(job)
    why = [f"{upper(what)} takes so many at once or a second and no more (limit key {job.limit_key})."]
    if around.key_in_use:
        why.append(f"{count(around.key_in_use, 'other job')} of it run now.")
    steps = [_nothing(), step("See how full its limit is.", Action.SHOW_LIMITS, job.queue)]
    return _told(job, around, "waits", f"Waits: others go to {what} first", [*why, _deadline(job)], steps)


def _waits_for_jobs(job: JobRecord, around: Circumstances) -> Diagnosis:
    waits = [row for row in around.related if row["relation"] == "dependsOn"]
    names = ", ".join(f"{row['id']} ({row['state'] or 'no longer kept'})" for row in waits)
    steps = [_nothing("Nothing: it runs when they have ended."),
             *(step(f"Look at job {row['id']}.", Action.SHOW_JOB, row["id"]) for row in waits[:3])]  # fmt: skip
    headline = f"Waits for {count(len(waits) or len(job.depends_on), 'other job')} to end"
    return _told(
        job,
        around,
        "waits for jobs",
        headline,
        [f"It depends on {names}." if names else "", _deadline(job)],
        steps,
    )


def _waits_in_lane(job: JobRecord, around: Circumstances) -> Diagnosis:
    _, rule, key = ((job.lane or "") + "::").split(":", 2)
    key = key.removesuffix("::")
    if around.holder is None:
        why = (
            [f"{count(around.key_in_use, 'other job')} of the key {key} run, and no more may."]
            if rule == "concurrency"
            else []
        )
        return _told(
            job,
            around,
            "waits",
            f"Waits for its turn behind others of the key {key}",
            [*why, _deadline(job)],
            [_nothing()],
        )
    look = step("Look at the job that is in the way.", Action.SHOW_JOB, around.holder)
    behind = count(around.behind, "job") + (" or more" if around.behind >= MOST_COUNTED else "")
    if around.holder_state is not JobState.DEAD:
        state = around.holder_state.value if around.holder_state is not None else "not known"
        why = [f"Jobs of ordering key {key} run one at a time. {behind} wait in all."]
        headline = f"Waits for its turn behind job {around.holder}, which is {state}"
        return _told(job, around, "waits", headline, [*why, _deadline(job)], [_nothing(), look])
    since = f" since {clock(around.holder_since)}" if around.holder_since is not None else ""
    why = [f"Jobs of ordering key {key} run in order, and none may pass one that died. {behind} wait in all.",
           "It waits until somebody redrives or discards the dead one."]  # fmt: skip
    steps = [look.model_copy(update={"text": "Look at the dead job, and do what it says: then this one runs."})]
    headline = f"Blocked by dead job {around.holder}{since}"
    return _told(job, around, "blocked", headline, [*why, _deadline(job)], steps, bad=True)


def _ready(job: JobRecord, around: Circumstances) -> Diagnosis:
    until = _blocked_until(around)
    if until is not None:
        return _throttled(job, around, until)
    ends = [one.finished_at for one in job.attempts]
    since = max([job.run_at, *ends, *([around.resumed_at] if around.resumed_at is not None else [])])
    # One of a lane may have become ready this moment: when, is not kept.
    late = around.now - since > SOON and job.lane is None
    steps = [_nothing("Nothing: it runs as soon as a worker is free.")]
    if late:
        steps = [step("See whether the queue is at its limit, or has too much work.", Action.SHOW_LIMITS, job.queue),
                 step("See whether the timers and the workers run.", Action.DOCTOR)]  # fmt: skip
    why = [_failures(job)] if job.attempts else []
    headline = (
        "Ready: a worker takes it next" if not late else f"Ready since {clock(since)}, and no worker has taken it"
    )
    return _told(job, around, "ready", headline, [*why, _deadline(job)], steps)


def _active(job: JobRecord, around: Circumstances) -> Diagnosis:
    steps = [
        _nothing("Nothing: it runs."),
        step("Stop it at its next step.", Action.CANCEL, job.id),
    ]
    headline, why = f"Runs now: attempt {job.attempt}", [f"Worker {job.leased_by} has it."]
    if job.stop_requested_at is not None:
        steps, why = (
            steps[:1],
            [*why, f"It was asked to stop at {clock(job.stop_requested_at)}, and stops at its next step."],
        )
    silent = job.lease_until is not None and job.lease_until < around.now
    if job.lease_until is not None and silent:
        headline = f"Its worker has given no sign of life: its lease ended at {clock(job.lease_until)}"
        why = [f"Worker {job.leased_by} had it. The rescue timer takes it back within {RESCUE.seconds} s."]
        late = around.now - job.lease_until > 3 * RESCUE
        steps = [step("The rescue timer is late: see whether the timers run.", Action.DOCTOR)] if late else [_nothing()]
    elif job.lease_until is not None:
        after = clock(job.lease_until)
        why.append(f"If that worker dies, the rescue timer takes it back within {RESCUE.seconds} s after {after}.")
    if job.attempts:
        why.append(_failures(job))
    tell = f"the {thing(job)} is being sent now" if sends(job) else "it is being done now"
    if sends(job) and (silent or unknown_since(job) is not None):
        tell = f"may have been sent; {redrive_is(job, 'an attempt after that')}"
        why += _maybe_sent(job)
    return Diagnosis(
        label="active", tone="waits", headline=headline, why=why, next=steps, tell=tell, effect=effect_of(job, around)
    )
