"""Whether a job that has not completed may have sent something, and what a redrive does about that."""

from __future__ import annotations

from datetime import timedelta

from shared.admin.diagnosis.circumstances import Circumstances
from shared.admin.diagnosis.words import clock, mailbox, place, sends, thing
from shared.admin.models.diagnosis import Effect
from shared.engine.job import FOUND_NOTHING, Attempt, ErrorClass, JobRecord, JobState, lost_answer

A_REDRIVE = "a redrive"
#: After one of these nobody knows, where nobody has looked since.
UNKNOWN_EFFECT = frozenset({ErrorClass.UNCERTAIN, ErrorClass.WORKER_LOST, ErrorClass.UNKNOWN})


def unknown_since(job: JobRecord) -> Attempt | None:
    """The first attempt that may have sent something, of which no later look said that there is nothing."""
    return lost_answer(job.attempts, UNKNOWN_EFFECT) if sends(job) else None


def effect_of(job: JobRecord, around: Circumstances) -> Effect:
    if job.state is JobState.COMPLETED:
        return Effect.DONE
    if not sends(job):
        return Effect.NONE
    earlier = any(one in UNKNOWN_EFFECT for one in around.earlier) and not _looked(job)
    running = job.state is JobState.ACTIVE
    return Effect.POSSIBLE if running or earlier or unknown_since(job) is not None else Effect.NONE


def has_just_looked(job: JobRecord) -> bool:
    """The last attempt found nothing of the ones before: only it itself may have sent something."""
    return bool(job.attempts) and bool(job.attempts[-1].details.get(FOUND_NOTHING))


def redrive_is(job: JobRecord, who: str = A_REDRIVE) -> str:
    """What a redrive, or the next attempt, does so that nothing is sent twice, for the end of a sentence."""
    if job.queue == "outlook-outbound":
        return f"{who} looks into the mailbox first and sends only what is not there"
    if job.queue == "notifications":
        return f"{who} sends it with the same id again, so that a receiver can tell a repeat"
    match sender(job):
        case "workflow":
            # Its own next attempt sends nothing (unless TEAMS_WORKFLOW_LOST says so): a redrive is a person's word.
            if who != A_REDRIVE:
                return (
                    "nobody can ask a workflow: unless the settings say otherwise it becomes a dead letter to decide on"
                )
            return f"nobody can ask a workflow, and {who} sends it again: look into the channel first"
        case "activity":
            return f"{who} takes the place of what was sent"
    return f"{who} looks into the chat first and sends only what is not there"


def sender(job: JobRecord) -> str | None:
    """Which way a Teams message went: account, bot, workflow, activity."""
    found = next((one.details["sender"] for one in reversed(job.attempts) if "sender" in one.details), None)
    return found if isinstance(found, str) else None


def tell_unfinished(job: JobRecord, effect: Effect, *, is_over: bool = False) -> str:
    """What one may tell the caller of a job that has not completed. `is_over`: it cannot be redriven either."""
    if not sends(job):
        return "not done"
    if effect is Effect.NONE:
        return "not sent"
    after = f"look into {where_to_look(job)}" if is_over else redrive_is(job)
    return f"{'most likely not' if has_just_looked(job) else 'may have been'} sent; {after}"


def where_to_look(job: JobRecord) -> str:
    """Where a person sees whether it was sent."""
    if job.queue == "outlook-outbound":
        return f"the sent mails of {mailbox(job) or 'the mailbox'}"
    return place(job) or "the place that it goes to"


def why_unknown(job: JobRecord, around: Circumstances) -> list[str]:
    """Why nobody knows whether it was sent."""
    first = unknown_since(job)
    if first is None:
        return ["An earlier run of it may have sent it."] if effect_of(job, around) is Effect.POSSIBLE else []
    if has_just_looked(job):
        return ["Before its last try it looked for what it had sent, and found nothing."]
    at = clock(first.started_at)
    what = {
        ErrorClass.UNCERTAIN: f"the answer to attempt {first.number} was lost",
        ErrorClass.WORKER_LOST: f"the worker of attempt {first.number} died or stood still",
        ErrorClass.UNKNOWN: f"attempt {first.number} failed in its handler",
    }[first.error_class or ErrorClass.UNKNOWN]
    return [f"It may have been sent: {what} at {at}, and no look since could tell whether the {thing(job)} is there."]


def _looked(job: JobRecord) -> bool:
    return any(one.details.get(FOUND_NOTHING) for one in job.attempts)


def lasted(job: JobRecord) -> timedelta:
    """From the first attempt's start to the last one's end."""
    return job.attempts[-1].finished_at - job.attempts[0].started_at if job.attempts else timedelta()
