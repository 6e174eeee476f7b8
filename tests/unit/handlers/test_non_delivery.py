"""Delivery reports: what they say, in the forms that servers send, and that no input breaks the reading."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.handlers.non_delivery import MOST_FAILURES, NonDelivery, is_report, read_report

ABOUT = "<sent-1@fleet.example>"


def report(statuses: str, about: str = f"Content-Type: message/rfc822\n\nMessage-ID: {ABOUT}\n\nbody\n") -> bytes:
    text = (
        "From: postmaster@fleet.example\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n"
        "In-Reply-To: <other@fleet.example>\n\n--b\nContent-Type: text/plain\n\nfailed\n"
        f"--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns;x.example\n\n{statuses}\n--b\n{about}--b--\n"
    )
    return text.replace("\n", "\r\n").encode()


def read(raw: bytes) -> list[tuple[str, str, str]]:
    found = read_report(raw, "a@x.example", {"internetMessageId": "<r@x.example>"})
    return [(failure.recipient, failure.status, failure.diagnostic) for failure in found.failures]


def test_the_mail_is_named_by_the_report_itself_and_else_by_its_headers() -> None:
    assert read_report(report("Action: failed"), "a", {}).message_id == ABOUT
    headers_only = f"Content-Type: text/rfc822-headers\n\nSubject: s\nMessage-ID: {ABOUT}\n\n"
    assert read_report(report("", headers_only), "a", {}).message_id == ABOUT
    assert read_report(report("", "Content-Type: text/plain\n\nx\n"), "a", {}).message_id == "<other@fleet.example>"
    assert read_report(b"", "a", {}).message_id == ""


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Final-Recipient: rfc822;a@x.example\nAction: failed\nStatus: 5.1.1", [("a@x.example", "5.1.1", "")]),
        (
            "Final-recipient: RFC822; a@x.example\nAction: FAILED\nDiagnostic-Code: smtp;550 5.2.2 full\n again",
            [("a@x.example", "5.2.2", "550 5.2.2 full again")],
        ),
        (
            "Original-Recipient: rfc822;asked@x.example\nFinal-Recipient: rfc822;b@x.example\nAction: failed",
            [("asked@x.example", "5.0.0", "")],
        ),
        ("Final-Recipient: rfc822;a@x.example\nAction: delayed\nStatus: 4.4.7", []),
        ("Final-Recipient: rfc822;a@x.example\nAction: delivered\nStatus: 2.0.0", []),
        ("Action: failed\nStatus: 5.1.1", []),
        ("nonsense", []),
    ],
)
def test_failed_recipients_are_read_and_no_others(status: str, expected: list[tuple[str, str, str]]) -> None:
    assert read(report(status)) == expected


def test_a_report_of_very_many_recipients_has_an_end() -> None:
    one = "Final-Recipient: rfc822;a@x.example\nAction: failed\nStatus: 5.1.1\n\n"
    assert len(read(report(one * (MOST_FAILURES + 5)))) == MOST_FAILURES


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([{"name": "X-MS-Exchange-Message-Is-Ndr", "value": ""}], True),
        ([{"name": "Content-Type", "value": 'multipart/report; report-type="delivery-status"; boundary=b'}], True),
        ([{"name": "Content-Type", "value": "multipart/report; report-type=disposition-notification"}], False),
        ([{"name": "Content-Type", "value": "text/plain"}], False),
        ([None, {"name": 5}, {"value": "x"}], False),
        (None, False),
    ],
)
def test_a_report_is_known_by_its_headers(headers: Any, expected: bool) -> None:
    assert is_report({"subject": "Undeliverable: x", "internetMessageHeaders": headers}) is expected


class Mailbox:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def mime(self, user: str, message: str, at_most: int) -> bytes:
        return self._raw[:at_most]


class Nobody:
    def record(self, report: Any) -> int:
        raise AssertionError("there is nothing to record")


def test_a_report_nested_without_end_is_no_report() -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5000))
    message = {"id": "1", "internetMessageHeaders": [{"name": "X-MS-Exchange-Message-Is-Ndr", "value": ""}]}
    assert NonDelivery(Mailbox(nested), Nobody()).take_in("a", message) == 0  # type: ignore[arg-type]


@given(st.binary(max_size=300), st.text(max_size=100))
def test_no_report_breaks_the_reading(raw: bytes, status: str) -> None:
    read_report(raw, "a", {})
    read_report(report(status), "a", {"internetMessageId": 7, "receivedDateTime": "never"})
