"""Large attachments against the fake Graph: whole and once, whatever happens on the way."""

from __future__ import annotations

import base64
import json
import random
from typing import Any, Literal

import pytest

from shared.engine.job import ErrorClass
from shared.graph.errors import LinkRefused
from shared.graph.uploads import MAIL_CHUNK, UploadClient
from shared.handlers.mail_payload import Mail
from tests.integration.graph.conftest import DISPATCH, DRIVER, Wired

#: Three chunks, the last one short.
FILE = random.Random(7).randbytes(2 * MAIL_CHUNK + 12_345)
SMALL = b"small" * 100
#: draft, small attachment, session, three chunks, send, confirmation.
REQUESTS = 8


def mail(wired: Wired, **more: Any) -> Mail:
    wired.blobs.contents |= {"attachments/tour.bin": FILE, "attachments/small.txt": SMALL}
    files = [
        {"name": "small.txt", "blob": "attachments/small.txt", "contentType": "text/plain"},
        {"name": "tour.bin", "blob": "attachments/tour.bin"},
    ]
    payload = {"from": DISPATCH, "to": [DRIVER], "subject": "Tour 7", "body": "b", "attachments": files} | more
    return Mail.model_validate(payload)


def assert_arrived_whole_and_once(wired: Wired) -> None:
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    contents = [base64.b64decode(item["contentBytes"]) for item in received["attachments"]]
    assert [item["name"] for item in received["attachments"]] == ["small.txt", "tour.bin"]
    assert contents == [SMALL, FILE]
    assert len(wired.graph.mailbox(DISPATCH)) == 1


def chunks(wired: Wired) -> list[str]:
    """The ranges that were sent, whether or not they were answered."""
    return [r["headers"]["content-range"] for r in wired.graph.requests() if r["method"] == "PUT"]


def sessions(wired: Wired) -> int:
    return len(wired.sent(path="/createUploadSession"))


def test_a_large_file_goes_in_chunks_without_a_token_and_is_never_whole_in_memory(wired: Wired) -> None:
    run = wired.run("outlook-outbound", mail(wired))
    assert run.result is not None and run.result["confirmed"] is True
    assert_arrived_whole_and_once(wired)
    uploads = [r for r in wired.graph.requests() if r["method"] == "PUT"]
    assert all("authorization" not in r["headers"] for r in uploads)
    assert max(size for _, size in wired.blobs.reads) <= MAIL_CHUNK < 4_000_000
    assert len([r for r in wired.graph.requests() if "v1.0/" in r["path"]]) == REQUESTS
    assert [a.size for a in wired.log.only.attachments] == [len(SMALL), len(FILE)]


def test_the_upload_url_is_nowhere_but_sealed(wired: Wired) -> None:
    run = wired.run("outlook-outbound", mail(wired))
    kept = json.dumps([run.saved, run.details, run.result])
    assert "upload" in (run.saved or {})
    assert "authtoken" not in kept and "AttachmentSessions" not in kept


STEPS = [(number, when) for number in range(1, REQUESTS + 1) for when in ("before", "after")]


@pytest.mark.parametrize(("number", "when"), STEPS)
def test_a_worker_killed_at_any_request_leaves_one_mail_with_whole_files(
    wired: Wired, number: int, when: Literal["before", "after"]
) -> None:
    wired.session.kill_at = (number, when)
    run = wired.run("outlook-outbound", mail(wired))
    assert run.classes == [ErrorClass.WORKER_LOST]
    assert_arrived_whole_and_once(wired)


@pytest.mark.parametrize(("number", "when"), [(5, "after"), (6, "before"), (6, "after")])
def test_a_killed_workers_upload_goes_on_where_it_was(
    wired: Wired, number: int, when: Literal["before", "after"]
) -> None:
    wired.session.kill_at = (number, when)
    wired.run("outlook-outbound", mail(wired))
    assert_arrived_whole_and_once(wired)
    assert sessions(wired) == 1
    assert sorted(set(chunks(wired))) == sorted(chunks(wired)), "no chunk went twice"


@pytest.mark.parametrize("kind", ["lose-answer", "reset"])
@pytest.mark.parametrize(
    "path", ["/messages$", "/attachments$", "/createUploadSession$", "AttachmentSessions", "/send$"]
)
def test_a_lost_answer_of_any_request_leaves_one_mail_with_whole_files(wired: Wired, kind: str, path: str) -> None:
    wired.graph.add_fault(kind, path=path, method="PUT" if path == "AttachmentSessions" else "POST")
    wired.run("outlook-outbound", mail(wired))
    assert_arrived_whole_and_once(wired)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_chunk_whose_answer_is_lost_is_looked_for_at_once(wired: Wired, chunk: int) -> None:
    for _ in range(chunk - 1):
        wired.graph.add_fault("delay", path="AttachmentSessions", method="PUT", seconds=0.01)
    wired.graph.add_fault("lose-answer", path="AttachmentSessions", method="PUT")
    run = wired.run("outlook-outbound", mail(wired))
    assert run.attempts == []
    assert_arrived_whole_and_once(wired)
    assert len(chunks(wired)) == 3


def test_the_last_answer_of_an_upload_that_went_on_is_lost_and_the_file_is_there_once(wired: Wired) -> None:
    wired.session.kill_at = (4, "after")

    def lose_the_last() -> None:
        wired.graph.add_fault("delay", path="AttachmentSessions", method="PUT", seconds=0.01)
        wired.graph.add_fault("lose-answer", path="AttachmentSessions", method="PUT")

    run = wired.run("outlook-outbound", mail(wired), between=lose_the_last)
    assert run.classes == [ErrorClass.WORKER_LOST]
    assert sessions(wired) == 1
    assert_arrived_whole_and_once(wired)


def test_an_upload_goes_on_at_the_byte_that_is_missing_not_at_a_chunk(wired: Wired) -> None:
    wired.graph.control("POST", "uploads", {"cutAfter": 1_000_003})
    run = wired.run("outlook-outbound", mail(wired))
    assert run.attempts == []
    assert chunks(wired)[1].startswith("bytes 1000003-")
    assert_arrived_whole_and_once(wired)


@pytest.mark.parametrize("status", [404, 410, 401])
def test_a_session_that_is_gone_is_begun_anew(wired: Wired, status: int) -> None:
    wired.graph.add_fault("delay", path="AttachmentSessions", method="PUT", seconds=0.01)
    wired.graph.add_fault("status", path="AttachmentSessions", method="PUT", status=status)
    run = wired.run("outlook-outbound", mail(wired))
    assert run.classes == [ErrorClass.NETWORK]
    assert_arrived_whole_and_once(wired)


def test_a_session_that_expires_between_two_attempts_is_begun_anew(wired: Wired) -> None:
    wired.session.kill_at = (5, "after")
    expire = {"expire": True}
    run = wired.run("outlook-outbound", mail(wired), between=lambda: wired.graph.control("POST", "uploads", expire))
    assert run.classes == [ErrorClass.WORKER_LOST]
    assert sessions(wired) == 2
    assert_arrived_whole_and_once(wired)


def test_416_asks_where_to_go_on(wired: Wired) -> None:
    wired.graph.add_fault("delay", path="AttachmentSessions", method="PUT", seconds=0.01)
    wired.graph.add_fault("status", path="AttachmentSessions", method="PUT", status=416)
    run = wired.run("outlook-outbound", mail(wired))
    assert run.attempts == []
    assert_arrived_whole_and_once(wired)


def test_a_session_whose_state_cannot_be_asked_is_begun_anew(wired: Wired) -> None:
    wired.session.kill_at = (5, "after")
    wired.graph.add_fault("status", path="AttachmentSessions", method="GET", status=405)
    wired.run("outlook-outbound", mail(wired))
    assert sessions(wired) == 2
    assert_arrived_whole_and_once(wired)


def test_429_of_a_chunk_waits_and_goes_on(wired: Wired) -> None:
    wired.graph.add_fault("delay", path="AttachmentSessions", method="PUT", seconds=0.01)
    wired.graph.add_fault("status", path="AttachmentSessions", method="PUT", status=429, headers={"Retry-After": "7"})
    run = wired.run("outlook-outbound", mail(wired))
    assert run.classes == [ErrorClass.RATE_LIMIT]
    assert run.delays[0].total_seconds() >= 7
    assert sessions(wired) == 1
    assert_arrived_whole_and_once(wired)


def test_without_a_permit_the_job_is_deferred_and_goes_on_where_it_was(wired: Wired) -> None:
    wired.refuse_every = 2
    run = wired.run("outlook-outbound", mail(wired))
    assert run.deferrals >= 2 and run.attempts == []
    assert sessions(wired) == 1 and len(set(chunks(wired))) == 3
    assert_arrived_whole_and_once(wired)


def test_every_request_beyond_the_common_path_takes_a_permit(wired: Wired) -> None:
    wired.run("outlook-outbound", mail(wired))
    assert wired.permits == REQUESTS - 3


def test_an_upload_that_takes_too_long_for_one_run_goes_on_in_the_next(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.handlers.mail_attempt.UPLOAD_SECONDS", -1.0)
    run = wired.run("outlook-outbound", mail(wired))
    assert run.deferrals == 1 and run.attempts == []
    assert sessions(wired) == 1 and len(chunks(wired)) == 3
    assert_arrived_whole_and_once(wired)


def test_a_blob_that_changes_meanwhile_is_sent_as_it_is_now(wired: Wired) -> None:
    changed = FILE[::-1]
    wired.session.kill_at = (5, "after")
    wired.run(
        "outlook-outbound", mail(wired), between=lambda: wired.blobs.contents.update({"attachments/tour.bin": changed})
    )
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    assert base64.b64decode(received["attachments"][1]["contentBytes"]) == changed
    assert len(received["attachments"]) == 2


def test_a_missing_blob_is_told_before_anything_is_made(wired: Wired) -> None:
    payload = mail(wired)
    del wired.blobs.contents["attachments/small.txt"]
    run = wired.run("outlook-outbound", payload)
    assert run.dead is not None and run.dead.failure.error_class is ErrorClass.VALIDATION
    assert "attachments/small.txt" in run.dead.failure.message
    assert wired.graph.mailbox(DISPATCH) == []


def test_files_that_are_too_large_together_are_told_before_anything_is_made(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.handlers.mail_attachments.LARGEST_BYTES", len(FILE))
    run = wired.run("outlook-outbound", mail(wired))
    assert run.dead is not None and str(len(FILE) + len(SMALL)) in run.dead.failure.message
    assert wired.graph.mailbox(DISPATCH) == []


@pytest.mark.parametrize("size", [0, 1, 2_097_151, 2_999_999, 3_000_000, 3_145_728, 3_145_729])
def test_files_on_either_side_of_the_border_arrive(wired: Wired, size: int) -> None:
    content = b"x" * size
    encoded = base64.b64encode(content).decode()
    wired.run("outlook-outbound", mail(wired, attachments=[{"name": "a.bin", "contentBytes": encoded}]))
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    (item,) = received["attachments"]
    assert base64.b64decode(item["contentBytes"]) == content
    assert sessions(wired) == (size >= 3_000_000)


def test_what_neither_way_takes_is_told_and_not_tried_in_circles(wired: Wired) -> None:
    content = b"x" * 2_999_999
    wired.blobs.contents["attachments/a.bin"] = content
    wired.graph.add_fault("status", path="/attachments$", status=413)
    run = wired.run("outlook-outbound", mail(wired, attachments=[{"name": "a.bin", "blob": "attachments/a.bin"}] * 2))
    assert run.dead is not None and run.dead.failure.error_class is ErrorClass.VALIDATION
    assert len(wired.sent(path="/attachments")) == 1 and sessions(wired) == 1


def test_a_file_that_is_too_large_for_a_request_after_all_goes_by_a_session(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.handlers.mail_attachments.SINGLE_BYTES", 3_200_000)
    wired.blobs.contents["attachments/a.bin"] = content = b"x" * 3_160_000
    files = [{"name": "a.bin", "blob": "attachments/a.bin"}]
    wired.graph.add_fault("status", path="/attachments$", status=413)
    wired.run("outlook-outbound", mail(wired, attachments=files))
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    assert [base64.b64decode(item["contentBytes"]) for item in received["attachments"]] == [content]
    assert sessions(wired) == 1


def test_a_file_that_is_too_small_for_a_session_after_all_goes_in_a_request(wired: Wired) -> None:
    content = b"x" * 3_000_000
    wired.blobs.contents["attachments/a.bin"] = content
    refusal = {"error": {"code": "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize", "message": "m"}}
    wired.graph.add_fault("status", path="/createUploadSession$", status=400, body=refusal)
    wired.run("outlook-outbound", mail(wired, attachments=[{"name": "a.bin", "blob": "attachments/a.bin"}]))
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    assert base64.b64decode(received["attachments"][0]["contentBytes"]) == content


def test_an_inline_image_may_be_large(wired: Wired) -> None:
    image = {"name": "map.png", "blob": "attachments/tour.bin", "isInline": True, "contentId": "map"}
    wired.run("outlook-outbound", mail(wired, attachments=[image], body='<img src="cid:map">', bodyType="html"))
    (received,) = wired.graph.mailbox(DRIVER, "inbox")
    assert received["attachments"][0]["isInline"] is True
    assert received["attachments"][0]["contentId"] == "map"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/upload",
        "http://outlook.office.com/api/v2.0/x",
        "https://outlook.office.com.evil.example/x",
        "https://outlook.office.com@evil.example/x",
        "https://outlook.office.com:8443/x",
        "https://outlook.office.com:port/x",
        "https://[::1/x",
        "https://evilsharepoint.com/x",
        "ftp://outlook.office.com/x",
        "", None, 7,
    ],
)  # fmt: skip
def test_an_upload_url_off_microsofts_hosts_is_refused(wired: Wired, url: Any) -> None:
    client = UploadClient(wired.session, wired.graph.graph_url)
    with pytest.raises(LinkRefused):
        client.check(url)


@pytest.mark.parametrize(
    "url", ["https://outlook.office.com/api/v2.0/x?authtoken=t", "https://fleet.sharepoint.com/_api/x"]
)
def test_an_upload_url_on_microsofts_hosts_is_followed(wired: Wired, url: str) -> None:
    assert UploadClient(wired.session, wired.graph.graph_url).check(url) == url


def test_a_session_that_leads_elsewhere_is_not_followed_and_ends_the_job(wired: Wired) -> None:
    answer = {"uploadUrl": "https://evil.example/x?authtoken=SECRET", "expirationDateTime": "2030-01-01T00:00:00Z"}
    wired.graph.add_fault("status", path="/createUploadSession$", status=201, body=answer)
    run = wired.run("outlook-outbound", mail(wired))
    assert run.dead is not None and "evil.example" in run.dead.failure.message
    assert "SECRET" not in json.dumps([run.dead.failure.message, run.dead.failure.details, run.saved])
