"""Non-delivery reports in the form that Exchange Online sends them."""

from __future__ import annotations

import base64
from email.utils import format_datetime
from uuid import uuid4

from local.fake_graph import message_form as form
from local.fake_graph import mime
from local.fake_graph.call import utc_now
from local.fake_graph.state import Mail, User, World

_UNKNOWN = ("5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient {address} not found by SMTP address lookup")
_SERVER = "DB9PR03MB7000.eurprd03.prod.outlook.com"


def reason(world: World, address: str) -> tuple[str, str] | None:
    """Why a mail to an address that is no user's does not arrive; None when it leaves the tenant for good."""
    if address in world.refused:
        return world.refused[address]
    status, text = _UNKNOWN
    return (status, text.format(address=address)) if address.rpartition("@")[2] in world.domains else None


def report(sender: User, mail: Mail, failures: list[tuple[str, str, str]]) -> Mail:
    """The report that comes into the sender's inbox; `failures` are address, status code and diagnostic."""
    raw = _mime(sender, mail, failures)
    arrived = mime.parse(raw, sender)
    arrived.raw = raw
    form.mark_received(arrived)
    return arrived


def _mime(sender: User, mail: Mail, failures: list[tuple[str, str, str]]) -> bytes:
    domain = sender.upn.rpartition("@")[2]
    subject = str(mail.value["subject"]).replace("\n", " ")
    about = str(mail.value["internetMessageId"])
    names = ", ".join(address for address, _, _ in failures)
    recipients = "".join(
        f"Final-Recipient: rfc822;{address}\r\nAction: failed\r\nStatus: {status}\r\n"
        f"Diagnostic-Code: smtp;{diagnostic}\r\nX-Display-Name: {address}\r\n\r\n"
        for address, status, diagnostic in failures
    )
    now = format_datetime(utc_now())
    text = (
        f"From: Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@{domain}>\r\n"
        f"To: <{sender.upn}>\r\nDate: {now}\r\n"
        'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="_report_"\r\n'
        "X-MS-Exchange-Message-Is-Ndr: \r\nContent-Language: en-US\r\n"
        f"Message-ID: <{uuid4()}@{_SERVER}>\r\nIn-Reply-To: {about}\r\nReferences: {about}\r\n"
        f"Subject: =?utf-8?B?{_base64('Undeliverable: ' + subject)}?=\r\n"
        "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\r\n"
        '--_report_\r\nContent-Type: multipart/alternative; differences=Content-Type;\r\n\tboundary="_text_"\r\n\r\n'
        '--_text_\r\nContent-Type: text/plain; charset="us-ascii"\r\n\r\n'
        f"Delivery has failed to these recipients or groups:\r\n\r\n{names}\r\n\r\n"
        '--_text_\r\nContent-Type: text/html; charset="us-ascii"\r\n\r\n'
        f"<html><body><p><b>Delivery has failed to these recipients or groups:</b></p><p>{names}</p></body></html>\r\n"
        "--_text_--\r\n"
        "--_report_\r\nContent-Type: message/delivery-status\r\n\r\n"
        f"Reporting-MTA: dns;{_SERVER}\r\nReceived-From-MTA: dns;{_SERVER}\r\nArrival-Date: {now}\r\n\r\n{recipients}"
        "--_report_\r\nContent-Type: message/rfc822\r\n\r\n"
    )
    return text.encode() + mime.build(mail) + b"\r\n--_report_--\r\n"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
