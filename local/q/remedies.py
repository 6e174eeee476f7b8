"""What somebody does about a job now: by its state, and for a dead one by its error class."""

from __future__ import annotations

from local.q.client import Json
from local.q.output import moment
from shared.engine.job import ErrorClass

REDRIVE = "./dev q redrive {letter}"
DISCARD = "Not worth it any more: ./dev q discard {letter}"
#: For each class: what has happened, and what to do before the dead letter runs again.
BY_CLASS: dict[ErrorClass, tuple[str, str]] = {
    ErrorClass.VALIDATION: (
        "Graph, or our own check, refused what was asked: running it again changes nothing.",
        "Correct the source, enqueue anew (./dev q enqueue {queue}), then ./dev q discard {letter}",
    ),
    ErrorClass.AUTH: (
        "It was refused for who we are.",
        "./dev q doctor names permissions that lack; grant them, then " + REDRIVE,
    ),
    ErrorClass.RATE_LIMIT: (
        "The other side was busy for longer than the retries.",
        "See how full the limits are (./dev q limits {queue}), then " + REDRIVE,
    ),
    ErrorClass.NETWORK: ("The other side could not be reached for longer than the retries.", REDRIVE),
    ErrorClass.TIMEOUT: ("The other side did not answer for longer than the retries.", REDRIVE),
    ErrorClass.UNCERTAIN: (
        "The answer to a send was lost, and looking for what was sent failed as well.",
        "Look at the far end. Not there: "
        + REDRIVE
        + " (it looks again before it sends). There: ./dev q discard {letter}",
    ),
    ErrorClass.WORKER_LOST: (
        "Its worker died at every attempt, or the host gave the message up.",
        "Look at the worker's log at the times of the attempts, then " + REDRIVE,
    ),
    ErrorClass.UNKNOWN: (
        "Its handler has a fault.",
        "Read the error and the log, mend and deploy, then " + REDRIVE,
    ),
    ErrorClass.EXPIRED: (
        "Its deadline passed before it could start.",
        "Still wanted: " + REDRIVE + " (without a deadline). If not: ./dev q discard {letter}",
    ),
    ErrorClass.DEPENDENCY: (
        "A job that it depends on ended dead or was cancelled.",
        "Look at that one first (related jobs above), then " + REDRIVE,
    ),
}


def what_now(job: Json, queue: Json | None) -> list[str]:
    """`job` is a JobDetail, `queue` its QueueFigures where they are known."""
    state, job_id = job["state"], job["id"]
    if state == "dead":
        return _of_dead(job)
    found = []
    if queue and queue["paused"] and state in ("ready", "scheduled", "waiting"):
        found.append(f"{job['queue']} is paused. Let it go on: ./dev q resume {job['queue']}")
    if state == "scheduled":
        found.append(f"It runs at {moment(job['runAt'])}. At once: ./dev q retry {job_id}")
        if job["errorClass"]:
            found.append("Its last attempt failed, and it is tried again by itself.")
    elif state == "waiting":
        found.append(_of_waiting(job))
    elif state == "ready" and not found:
        found.append(
            f"It runs as soon as a worker is free. If it does not: ./dev q limits {job['queue']}, ./dev q doctor"
        )
    elif state == "active":
        found.append(
            f"{job['leasedBy']} runs it; if that worker dies, another one takes it after {moment(job['leaseUntil'])}."
        )
        found.append("It was asked to stop." if job["stopRequestedAt"] else f"Stop it: ./dev q cancel {job_id}")
    elif state == "completed" and job["deliveryFailures"]:
        found.append("It was sent, but did not reach everybody: correct the recipients named above, then enqueue anew.")
    elif state in ("completed", "cancelled"):
        found.append("Nothing.")
    return found


def _of_dead(job: Json) -> list[str]:
    redriven = next((one["id"] for one in job["related"] if one["relation"] == "redrivenAs"), None)
    if redriven:
        return [f"Nothing here: it runs again as ./dev q show {redriven}"]
    if any(moment["event"] == "discarded" for moment in job["timeline"]):
        return ["Nothing: it was given up."]
    what, then = BY_CLASS[ErrorClass(job["errorClass"] or "unknown")]
    names = {"letter": job["deadLetterId"] or job["id"], "queue": job["queue"]}
    found = [what, then.format(**names)]
    return found if "discard" in then else [*found, DISCARD.format(**names)]


def _of_waiting(job: Json) -> str:
    if job["dependsOn"]:
        return f"It waits for other jobs: ./dev q show {job['dependsOn'][0]}"
    return f"It waits for its turn behind others with the same key ({job['lane'] or 'its key'})."
