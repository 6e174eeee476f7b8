"""From what a caller has to the job: by its id or its dead letter's, or by whatever a search takes."""

from __future__ import annotations

import json
import re
from uuid import UUID

from local.q.client import Client, Json
from local.q.errors import CommandError, Exit

#: More hits than one are shown to choose from, so many at most.
MOST_SHOWN = 20
WHAT = (
    "A search takes a job's id or its beginning, a correlation id, an idempotency key, a chat, channel or mailbox, a "
    "recipient or sender (an address or user id, as a whole), a message id, or a Graph request id."
)
NOT_KEPT = (
    "Jobs are kept for 30 days after their end. An enqueue that was refused is not stored. A job that has not ended is "
    "not found by its recipients: see ./dev q list QUEUE."
)

#: As an address: no internet message id (`<a@b>`), no chat (`19:a@thread.v2`).
_ADDRESS = re.compile(r"[^\s<>:@]+@[^\s<>:@]+")
FOR_PERSON = "Messages to {} that have not ended are not found by their recipient: for those see ./dev q list QUEUE."


def find(client: Client, text: str) -> Json:
    """A job whole (it has `payload`); the dead letter of a message that is no job, or whose job is no longer kept
    (`body`); or a page of jobs (`items`) where several fit, or where a person may have more messages. Raises
    CommandError when none does."""
    text = text.strip()
    by_id = _by_id(client, text) if _is_id(text) else None
    if by_id is not None:
        return by_id
    page: Json = client.call("findJobs", query={"search": text, "limit": MOST_SHOWN})
    if not page["items"]:
        raise CommandError(Exit.NOT_FOUND, f"no job fits {text!r}.", hint=f"{WHAT}\n{NOT_KEPT}")
    if page["next"] is None and is_one_message(page["items"]):
        found: Json = client.call("showJob", id=page["items"][0]["id"])
        if not may_be_person(text) or _names(found, text):
            return found
    return page


def find_one(client: Client, text: str) -> Json:
    """The one job, or the dead letter that is all there is of it, that the text finds. Raises CommandError, with what
    there is to choose from, when it may be several: of an order somebody must know what it is about."""
    found = find(client, text)
    if "items" not in found:
        return found
    rows = [f"{one['id']}  {one['queue']}  {one['label']}" for one in found["items"]]
    more = ["and more"] if found["next"] else []
    why = f"Messages to {text.strip()} that have not ended are not among them. " if may_be_person(text) else ""
    hint = "\n".join([*rows, *more, f"{why}Name one by its id."])
    raise CommandError(Exit.REFUSED, f"{text!r} does not say which job: these fit, newest first.", hint=hint)


def job_id(client: Client, text: str) -> str:
    """The id of the one job that the text finds. Raises CommandError as `find_one`."""
    found = find_one(client, text)
    if "payload" not in found:
        what = "a message that is no job" if found["jobId"] is None else "a dead letter whose job is no longer kept"
        raise CommandError(Exit.REFUSED, f"{text!r} is {what}: it can only be discarded.")
    return str(found["id"])


def letter_id(client: Client, text: str) -> str:
    """The id of the one dead letter, or of the one of the job, that the text finds. Raises CommandError as
    `find_one`, and where the job has none."""
    letter = _there(client, "showDeadLetter", text.strip()) if _is_id(text.strip()) else None
    if letter is not None:
        return str(letter["id"])
    found = find_one(client, text)
    if "payload" in found and found["deadLetterId"] is None:
        raise CommandError(Exit.NOT_FOUND, f"job {found['id']} is {found['state']}: it has no dead letter.")
    return str(found["deadLetterId"] if "payload" in found else found["id"])


def may_be_person(text: str) -> bool:
    """Whether it looks like an address or a user id: of a recipient's messages only those that ended are found."""
    return _ADDRESS.fullmatch(text.strip()) is not None or _is_id(text.strip())


def _names(job: Json, text: str) -> bool:
    """Whether the text is what the job itself is called by, and not one of its people. The dashboard (views/jobs.js)
    decides alike."""
    text = text.lower()
    names = [job[name] for name in ("id", "deadLetterId", "correlationId", "idempotencyKey")]
    again = json.dumps([one["text"] for one in job["timeline"] if one["event"] == "job.again"])
    calls = json.dumps(job["attempts"]) if _is_id(text) else ""
    known = text in [name.lower() for name in names if name] or (job["limitKey"] or "").lower().endswith(f":{text}")
    return known or text in f"{again}{calls}".lower()


def is_one_message(jobs: list[Json]) -> bool:
    """Whether they are one job and the redrives of it: the newest then tells of the others."""
    return len({job["redriveOf"] or job["id"] for job in jobs}) == 1


def _by_id(client: Client, text: str) -> Json | None:
    """Dead letters are kept for longer than jobs: then the letter is all there is."""
    job = _there(client, "showJob", text)
    if job is not None:
        return job
    letter = _there(client, "showDeadLetter", text)
    if letter is None or letter["jobId"] is None:
        return letter
    return _there(client, "showJob", letter["jobId"]) or letter


def _there(client: Client, operation: str, id_: str) -> Json | None:
    try:
        found: Json = client.call(operation, id=id_)
    except CommandError as error:
        if error.code is not Exit.NOT_FOUND:
            raise
        return None
    return found


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
