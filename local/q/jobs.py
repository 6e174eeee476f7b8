"""One job: everything that happened to it and what to do now; cancel and retry."""

from __future__ import annotations

import json as json_text
import shlex
from typing import Annotated, Any

import typer

from local.q.attempts import show_attempts, show_timeline
from local.q.client import Json
from local.q.diagnosis import show_headline, what_now
from local.q.output import ago, moment, say, show_fields, show_json, show_table
from local.q.search import FOR_PERSON, find, job_id, may_be_person
from local.q.session import AsJson, client_of

_STYLES = {"dead": "red", "active": "cyan", "parked": "red", "blocked": "red", "paused": "yellow"}
Which = Annotated[
    str,
    typer.Argument(
        metavar="WHICH",
        help="A job's id or its dead letter's, correlation id, idempotency key, chat, mailbox, recipient, message id …",
    ),
]


def show(context: typer.Context, which: Which, json: AsJson = False) -> None:
    """Show all about one job, and what to do now; or, where several fit, these to choose from."""
    client = client_of(context)
    found = find(client, which)
    if json:
        show_json(found)
        return
    if "items" in found:
        _show_choice(which, found)
        return
    if "payload" not in found:
        _show_letter(found)
        return
    _show(found)


def _show_choice(text: str, page: Json) -> None:
    """Several fit: newest first, and how to go on."""
    more = " and more" if page["next"] else ""
    number = len(page["items"])
    say(f"{number} jobs{more} fit {text!r}, newest first:" if number != 1 else f"1 job fits {text!r}:")
    if may_be_person(text):
        say(FOR_PERSON.format(text.strip()), "yellow")
    say()
    show_page(page | {"next": None}, with_queue=True)
    say(f"\nOne of them: ./dev q show {page['items'][0]['id']}")
    if page["next"]:
        say(f"All of them: ./dev q list --search {shlex.quote(text)}")


def cancel(context: typer.Context, which: Which, json: AsJson = False) -> None:
    """Cancel a job, or ask a running one to stop."""
    client = client_of(context)
    done = client.call("cancelJob", id=job_id(client, which))
    stops = "It runs, and is asked to stop at its next checkpoint."
    show_json(done) if json else say("Cancelled." if done["outcome"] == "cancelled" else stops)


def retry(context: typer.Context, which: Which, json: AsJson = False) -> None:
    """Run a scheduled job now, or a dead one again."""
    client = client_of(context)
    before = client.call("showJob", id=job_id(client, which))
    done = client.call("retryJob", id=before["id"])
    if json:
        show_json(done)
    elif done["created"]:
        say(f"It runs again as {done['id']}.")
    else:
        say(_what_came(before, client.call("showJob", id=before["id"])))


def _what_came(before: Json, after: Json) -> str:
    """What the order to run it now led to: a job may be held back by more than its time."""
    if after["state"] in ("scheduled", "waiting") or (
        after["state"] == "ready" and after["diagnosis"]["label"] != "ready"
    ):
        return f"It does not run yet. {_said(after)}"
    if before["diagnosis"]["label"] == "parked":
        return f"It is tried now, and parks again unless there is a token by then. It was: {_said(before)}"
    return "It runs now."


def _said(job: Json) -> str:
    told = job["diagnosis"]
    return " ".join([f"{told['headline'].rstrip('.')}.", *told["why"]])


def show_page(page: Json, *, with_queue: bool = False) -> None:
    """A page of jobs, and how to get the next one."""
    rows = [
        [
            one["id"],
            *([one["queue"]] if with_queue else []),
            one["label"],
            one["attempt"],
            ago(one["at"]),
            one["correlationId"] or one["idempotencyKey"],
            _why(one),
        ]
        for one in page["items"]
    ]
    styles = [_STYLES.get(one["label"], "") for one in page["items"]]
    columns = ["job", *(["queue"] if with_queue else []), "state", "tries", "when", "correlation", "error"]
    show_table(columns, rows, styles=styles)
    show_end(page, "jobs")


def show_end(page: Json, what: str) -> None:
    if not page["items"]:
        say(f"There are no {what}.")
    if page["next"]:
        say(f"\nMore: --cursor {page['next']}")


def _why(one: Json) -> str:
    return f"{one['errorClass']}: {one['errorMessage']}" if one["errorClass"] else ""


def _show(job: Json) -> None:
    say(f"{job['id']}  {job['queue']}  {job['state']}", "bold")
    show_headline(job)
    if job["internal"]:
        say("An internal job: the system made it for itself, it is nobody's message.", "yellow")
        for one in job["related"]:
            if one["relation"] == "about":
                say(f"It is about this one: ./dev q show {one['id']}", "yellow")
    say()
    show_fields([
        ("priority", job["priority"]),
        ("attempts", job["attempt"]),
        ("enqueued", moment(job["enqueuedAt"])),
        ("due", moment(job["runAt"]) if job["state"] == "scheduled" else None),
        ("deadline", moment(job["expiresAt"])),
        ("ended", moment(job["finishedAt"])),
        ("correlation id", job["correlationId"]),
        ("idempotency key", job["idempotencyKey"]),
        ("waits in lane", job["lane"]),
        ("limit key", job["limitKey"]),
        ("runs at", job["leasedBy"]),
        ("dead letter", job["deadLetterId"]),
        ("batch", _batch(job["batch"])),
        ("error", _why(job)),
    ])  # fmt: skip
    _section("Payload" + (" (values hidden: only an Admin sees them)" if job["payloadMasked"] else ""))
    say(_pretty(job["payload"]))
    for name in ("progress", "result"):
        if job[name]:
            _section(name.capitalize())
            say(_pretty(job[name]))
    if job["attempts"]:
        _section("Attempts")
        show_attempts(job["attempts"])
    if job["deliveryFailures"]:
        _section("Not delivered to")
        rows = [[one["recipient"], one["status"], one["diagnostic"]] for one in job["deliveryFailures"]]
        show_table(["recipient", "status", "why"], rows)
    _section("Timeline")
    show_timeline(job["timeline"])
    if job["related"]:
        _section("Related jobs")
        rows = [[one["relation"], one["id"], one["state"] or "no longer kept", one["queue"]] for one in job["related"]]
        show_table(["relation", "job", "state", "queue"], rows)
    _section("What to do now")
    for line in what_now(job):
        say(line)


def _show_letter(letter: Json) -> None:
    """A message that is no job, or what is left of a job that is no longer kept."""
    foreign = letter["jobId"] is None
    what = "a message that is no job" if foreign else f"dead letter of job {letter['jobId']}, which is no longer kept"
    say(f"{letter['id']}  {letter['queue']}  {what}", "bold")
    say(_why(letter), "red")
    say()
    show_fields([
        ("state", letter["state"]),
        ("died", None if foreign else moment(letter["diedAt"])),
        ("reviewed by", letter["reviewedBy"]),
        ("review", letter["reviewNote"]),
    ])  # fmt: skip
    if foreign:
        _section("Message")
        say(letter["text"] or "")
    _section("What to do now")
    if foreign:
        came = f"it came at {moment(letter['diedAt'])} into storage queue {letter['queue']}"
        say(f"This is not one of our messages: {came}. Find its sender; there is nothing to redrive.")
    else:
        say("Its job is no longer kept, and the payload with it: there is nothing to redrive. What shall still be done")
        say("is to be enqueued anew by whoever wanted it.")
    if letter["state"] == "open":
        say(f"Then: ./dev q discard {letter['id']}")


def _section(title: str) -> None:
    say(f"\n{title}", "bold")


def _pretty(value: Any) -> str:
    return json_text.dumps(value, indent=2, ensure_ascii=False)


def _batch(batch: Json | None) -> str | None:
    if batch is None:
        return None
    counts = [f"{batch[name]} {name}" for name in ("completed", "dead", "cancelled", "pending") if batch[name]]
    return f"{batch['id']}: of {batch['total']} {', '.join(counts)}"
