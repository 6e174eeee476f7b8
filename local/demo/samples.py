"""Messages as people send them: what the demo lets arrive."""

from __future__ import annotations

import base64
import struct
import zlib
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

DISPATCH = "dispatch@fleet.example"
DRIVER = "alex.driver@fleet.example"
DISPATCH_ID = "aaaaaaaa-0000-4000-8000-000000000001"
DRIVER_ID = "aaaaaaaa-0000-4000-8000-000000000002"
ACCOUNT_ID = "aaaaaaaa-0000-4000-8000-000000000003"
CHAT = "19:dispatch@thread.v2"


def mail_with_picture_and_report() -> bytes:
    """HTML with an inline picture, an attached PDF, and characters from beyond ASCII in every place."""
    mail = _mail("Zoë Müller <zoe@kunde.example>", "Lieferung verspätet – Straße gesperrt 🚧", "zoe-1")
    mail.set_content("Die A8 ist gesperrt.\nAnkunft etwa 18:30 Uhr.")
    mail.add_alternative(
        '<html><body><p>Die <b>A8</b> ist gesperrt.</p><img src="cid:map@kunde.example">'
        "<p>Ankunft etwa 18:30&nbsp;Uhr. ☕</p></body></html>",
        subtype="html",
    )
    html = mail.get_payload()[1]  # type: ignore[index]
    html.add_related(png(), "image", "png", cid="<map@kunde.example>", filename="karte.png")  # type: ignore[union-attr]
    mail.add_attachment(b"%PDF-1.4\n%%EOF\n", "application", "pdf", filename="Lieferschein Ü-42.pdf")
    return mail.as_bytes()


def plain_mail(number: int) -> bytes:
    mail = _mail("Depot <depot@fleet.example>", f"Gate {number} is free", f"depot-{number}")
    mail.set_content(f"Gate {number} is free from now on.")
    return mail.as_bytes()


def mail_of_only_a_picture() -> bytes:
    mail = _mail("camera@fleet.example", "Yard camera 3", "camera-3")
    mail.set_content('<div><img src="cid:shot@fleet.example"></div>', subtype="html")
    mail.add_related(png(), "image", "png", cid="<shot@fleet.example>", filename="shot.png")
    return mail.as_bytes()


def chat_message_with_mention() -> dict[str, object]:
    """The body of a chat message as Graph has it, from the driver to the dispatcher."""
    return {
        "body": {
            "contentType": "html",
            "content": '<div><at id="0">Dispatch</at> tyre at 1.8 bar, stopping at Nürnberg 🛞</div>',
        },
        "mentions": [
            {
                "id": 0,
                "mentionText": "Dispatch",
                "mentioned": {
                    "user": {
                        "id": DISPATCH_ID,
                        "displayName": "Dispatch",
                        "userIdentityType": "aadUser",
                    }
                },
            }
        ],
    }


def chat_message(text: str) -> dict[str, object]:
    return {"body": {"contentType": "text", "content": text}}


def png() -> bytes:
    """A picture of 2 × 2 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\x00" + b"\xff\x80\x00" * 2 for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _mail(sender: str, subject: str, name: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = f"Dispatch <{DISPATCH}>"
    mail["Subject"] = subject
    mail["Date"] = format_datetime(datetime.now(UTC))
    mail["Message-ID"] = f"<{name}@demo.example>"
    return mail
