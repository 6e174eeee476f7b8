"""Part 3: a large file from blob storage, a reply, and a mail that does not arrive; chunks and answers are lost."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import Any
from uuid import UUID

import requests

from local.demo import samples, steps
from local.demo.report import Report
from local.demo.world import World
from shared import bootstrap
from shared.engine.errors import PayloadError

STEP = 3
BLOB = "attachments/tours/7.zip"
FILE = random.Random(7).randbytes(9_000_000)
UNKNOWN = "nobody@fleet.example"
QUESTION = (
    b"From: Alex Driver <alex.driver@fleet.example>\r\nSubject: Which gate?\r\nMessage-ID: <q@fleet.example>\r\n\r\n7?"
)


def play(world: World, report: Report) -> None:
    report.heading(STEP, "Mail: 9 MB by an upload session, a reply, a non-delivery report; answers are lost")
    bootstrap.watched_resources().watch(steps.INBOX)
    bootstrap.blobs().write(BLOB, FILE)
    world.fault(method="PUT", path="AttachmentSessions", kind="lose-answer")
    world.fault(path="/send$", kind="lose-answer")
    _send(to=[samples.DRIVER], subject="Tour 7", attachments=[{"name": "7.zip", "blob": BLOB}])
    original = world.graph.arrive_mail(samples.DISPATCH, QUESTION)
    world.fault(path="/createReply$", kind="lose-answer")
    _send(original={"messageId": original, "action": "reply"})
    report.wait(
        STEP, "mails with a file of 9 MB, whole, in Sent Items and at the driver's", "1, 1", lambda: _whole(world)
    )
    report.wait(STEP, "replies in the thread of the question, and drafts left", "1, 0", lambda: _replies(world))
    report.wait(STEP, "subscriptions to the sender's inbox", True, lambda: len(world.graph.subscriptions()) > 0)
    failed = _send(to=[UNKNOWN], subject="Tour 8")
    report.wait(
        STEP,
        "whom a mail did not reach, as its job shows over HTTP",
        f"{UNKNOWN} 5.1.10",
        lambda: _failures(world, failed),
    )
    report.expect(STEP, "to an address that is none", "refused: payload.to.1.address", _refusal())


def _send(**more: Any) -> UUID:
    return bootstrap.producer().enqueue("outlook-outbound", {"from": samples.DISPATCH, "body": "See above."} | more).id


def _whole(world: World) -> str:
    """How many copies of the mail have the whole file, at either end."""
    wanted = hashlib.sha256(FILE).digest()
    counts = []
    for user, folder in ((samples.DISPATCH, "sentitems"), (samples.DRIVER, "inbox")):
        mails = [mail for mail in world.graph.mailbox(user, folder) if mail["subject"] == "Tour 7"]
        files = [[base64.b64decode(item["contentBytes"]) for item in mail["attachments"]] for mail in mails]
        counts.append(sum([hashlib.sha256(one).digest() for one in content] == [wanted] for content in files))
    return ", ".join(map(str, counts))


def _replies(world: World) -> str:
    mails = world.graph.mailbox(samples.DISPATCH)
    thread = {mail["conversationId"] for mail in mails if mail["subject"] == "Which gate?"}
    own = [mail for mail in mails if mail["conversationId"] in thread and mail["subject"] == "RE: Which gate?"]
    return f"{sum(not mail['isDraft'] for mail in own)}, {sum(mail['isDraft'] for mail in own)}"


def _failures(world: World, job_id: UUID) -> str:
    headers = {"x-admin-key": world.stack.environment["ADMIN_KEY"]}
    job = requests.get(f"{world.stack.host_url}/queue/jobs/{job_id}", headers=headers, timeout=10).json()
    return ", ".join(f"{one['recipient']} {one['status']}" for one in job["deliveryFailures"])


def _refusal() -> str:
    try:
        _send(to=[samples.DRIVER, "bad@@x", samples.DRIVER], subject="s")
    except PayloadError as error:
        return f"refused: {', '.join(problem.field for problem in error.problems)}"
    return "taken"
