"""Jobs that completed, delivered or not, and cancelled ones."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from shared.admin.diagnosis.anew import for_those_without_it
from shared.admin.diagnosis.circumstances import Circumstances, Row
from shared.admin.diagnosis.dead import dependency_of
from shared.admin.diagnosis.effect import UNKNOWN_EFFECT, effect_of, tell_unfinished, where_to_look, why_unknown
from shared.admin.diagnosis.labels import undelivered
from shared.admin.diagnosis.words import clock, count, mailbox, place, sends, step, thing
from shared.admin.models.diagnosis import Action, Diagnosis, Effect, Step
from shared.engine.job import JobRecord, lost_answer

DONE = [step("Nothing.")]


def completed(job: JobRecord, around: Circumstances) -> Diagnosis:
    result = job.result or {}
    at = clock(job.finished_at or around.now)
    if job.queue == "dead-letter" and isinstance(job.payload.get("deadLetterId"), str):
        about = next((row for row in around.related if row["relation"] == "about"), None)
        steps = [step("Look at that dead letter.", Action.SHOW_LETTER, job.payload["deadLetterId"])]
        if about is not None:
            steps.insert(0, step("Look at the job that died.", Action.SHOW_JOB, about["id"]))
        headline = f"Done at {at}: somebody was told of a dead letter"
        return _done(headline, ["It is no message itself."], steps, "this is not the message")
    if result.get("outcome") == "split":
        jobs = count(int(result.get("jobs", 0)), "job")
        return _done(
            f"Shared out at {at}: a job for each person",
            [f"It became {jobs}, which tell what came of each."],
            DONE,
            f"handed on to {jobs} at {at}",
        )
    if result.get("outcome") == "failed-over":
        why = [f"{result.get('channel')} failed for good; a new job tries {result.get('next')}."]
        return _done(
            f"Handed on at {at} to {result.get('next')}",
            why,
            DONE,
            f"not sent by {result.get('channel')}; {result.get('next')} is tried",
        )
    if not sends(job) or result.get("outcome") != "sent":
        return _done(f"Done at {at}", [], DONE, f"done at {at}")
    return _undelivered(job, around, at) if around.failures else _sent(job, around, at, result)


def _done(headline: str, why: list[str], steps: list[Step], tell: str) -> Diagnosis:
    return Diagnosis(
        label="completed", tone="good", headline=headline, why=why, next=steps, tell=tell, effect=Effect.DONE
    )


def _sent(job: JobRecord, around: Circumstances, at: str, result: dict[str, Any]) -> Diagnosis:
    name = result.get("internet_message_id") or result.get("message_id")
    known = f", as message {name}" if name else ""
    where = place(job)
    detail = f"{f' for {where}' if where and job.queue == 'teams-outbound' else ''}{known}"
    sent_at = _sent_at(result)
    sent = f"at {sent_at or at}"
    if result.get("read_back"):
        if sent_at is None:
            lost = lost_answer(job.attempts, UNKNOWN_EFFECT)
            sent = f"in attempt {lost.number} of {clock(lost.started_at)}" if lost is not None else f"before {at}"
        why = [f"{_taker(job)} had taken it{detail}; its answer was lost. It was found at {at}, and not sent twice."]
    else:
        why = [f"{_taker(job)} took it {sent}{detail}."]
    if result.get("confirmed") is False:
        why.append("It was taken, and not seen in Sent Items when it was looked for at once.")
    steps = [step("Nothing. If somebody misses it: give them this time and this id.")]
    if job.queue == "outlook-outbound":
        if around.reports_watched:
            why.append("No report says that it came back.")
        elif around.reports_watched is None:
            why.append(f"No report says that it came back; one is seen here only if {mailbox(job)} is watched.")
            steps.append(step("See whether the mailbox is watched, by its id.", Action.SHOW_SUBSCRIPTIONS))
        else:
            why.append(f"Whether it came back cannot be seen here: {mailbox(job)} is not watched. Look into its inbox.")
            steps.append(step("Have the mailbox watched, so that reports show here.", Action.SHOW_SUBSCRIPTIONS))
    return _done(f"Sent {sent}", why, steps, f"sent {sent}{known}")


def _sent_at(result: dict[str, Any]) -> str | None:
    """As Graph says it."""
    try:
        return clock(datetime.fromisoformat(result["sent_at"]))
    except (KeyError, TypeError, ValueError):
        return None


def _taker(job: JobRecord) -> str:
    return "The other side" if job.queue == "notifications" else "Graph"


def _undelivered(job: JobRecord, around: Circumstances, at: str) -> Diagnosis:
    whom = sorted({str(row["recipient"]) for row in around.failures})
    everybody = recipients(job)
    why = [f"{row['recipient']}: {_meaning(row)} ({row['status']}, {_reported(row)})." for row in around.failures]
    rest = everybody - len(whom)
    if rest > 0:
        why.append(f"No report says that the other {rest} did not get it: do not send them the whole mail again.")
    steps = [step(text) for text in dict.fromkeys(_remedy(row) for row in around.failures)]
    payload = for_those_without_it(job.payload, around.failures)
    steps.append(step(f"Then enqueue it anew to {_corrected(around)} only.", Action.ENQUEUE_ANEW, job.queue, payload))
    short = undelivered(len(whom), everybody)
    tell = f"sent at {at}, but not delivered to {', '.join(whom)}"
    return Diagnosis(
        label=short, tone="bad", headline=f"Sent, but {short}", why=why, next=steps, tell=tell, effect=Effect.DONE
    )


def _reported(row: Row) -> str:
    return f"reported at {clock(datetime.fromisoformat(row['reportedAt']))}"


def _corrected(around: Circumstances) -> str:
    """To whom it goes anew: an address that does not exist only once it is corrected."""
    wrong = {str(row["recipient"]) for row in around.failures if str(row["status"]).startswith("5.1.")}
    whom = sorted({str(row["recipient"]) for row in around.failures})
    return ", ".join(f"the right address of {one}" if one in wrong else one for one in whom)


def recipients(job: JobRecord) -> int:
    """To how many a mail went; 0 where its payload does not say (a reply)."""
    found = [one for name in ("to", "cc", "bcc") for one in job.payload.get(name) or ()]
    return len({str(one.get("address") if isinstance(one, dict) else one).lower() for one in found})


_MEANINGS = (
    (("5.2.2", "4.2.2"), "the mailbox is full", "Ask them to make room, or tell them another way."),
    (("5.1.",), "there is no such address", "Find the right address, and correct it where it came from."),
    (
        ("5.7.", "4.7."),
        "their server refuses it",
        "Ask their administrator why (blocked sender, policy), or tell them another way.",
    ),
    (("5.2.3", "5.3.4"), "it is too large for them", "Send it smaller, or a link in place of the attachments."),
    (("4.",), "their server did not take it in time", "Try again later."),
)


def _meaning(row: Row) -> str:
    return _rule(row)[0]


def _remedy(row: Row) -> str:
    return _rule(row)[1]


def _rule(row: Row) -> tuple[str, str]:
    status = str(row["status"])
    found = next(((what, do) for starts, what, do in _MEANINGS if status.startswith(starts)), None)
    return found or ("it came back", "Read what their server said (below), and mend that or tell them another way.")


def cancelled(job: JobRecord, around: Circumstances) -> Diagnosis:
    at, effect = clock(job.finished_at or around.now), effect_of(job, around)
    headline, why, steps = _by_whom(job, around, at)
    sent = why_unknown(job, around)
    tell = f"cancelled at {at}; {tell_unfinished(job, effect, is_over=True)}"
    return Diagnosis(
        label="cancelled", tone="plain", headline=headline, why=[*why, *sent], next=steps, tell=tell, effect=effect
    )


def _by_whom(job: JobRecord, around: Circumstances, at: str) -> tuple[str, list[str], list[Step]]:
    wanted = f"Still wanted: enqueue the {thing(job)} anew."
    if effect_of(job, around) is Effect.POSSIBLE:
        wanted = f"Look into {where_to_look(job)} first. Not there, and still wanted: enqueue it anew."
    anew = step(wanted, Action.ENQUEUE_ANEW, job.queue, job.payload)
    result = job.result or {}
    if result.get("replacedBy"):
        look = step("Look at the job that took its place.", Action.SHOW_JOB, result["replacedBy"])
        return (
            f"Replaced at {at} by job {result['replacedBy']}",
            ["A newer job with the same key took its place."],
            [look],
        )
    other, state = dependency_of(job)
    if other is not None:
        look = step("Look at the job that it waited for.", Action.SHOW_JOB, other)
        why = [f"It was to be cancelled if job {other} does not succeed, and that one ended {state}."]
        return f"Cancelled at {at}, since job {other} ended {state}", why, [look, anew]
    order = next((row for row in around.orders if row["action"] == "job.cancel"), None)
    if order is not None:
        why = ["It ran and was asked to stop." if job.attempts else "It had not started."]
        return f"Cancelled at {at} by {order['who']}", why, [anew]
    if around.cleared_by is not None:
        return f"Cancelled at {at}: {around.cleared_by} emptied the queue {job.queue}", [], [anew]
    return f"Cancelled at {at}", ["Not by this API: the application did it, in SQL or by its library."], [anew]
