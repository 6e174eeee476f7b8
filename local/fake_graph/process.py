"""The fake Graph as a process of tests, the demo and the local stack."""

from __future__ import annotations

import base64
import fcntl
import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import quote

import requests
import trustme

from local.fake_graph import hubs, receivers
from local.fake_graph.workflows import ALERTS, ALERTS_SIGNATURE, address
from local.process import Process, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
#: How long an answer to a control call may take; deliveries wait for their webhook.
CONTROL_SECONDS = 60


class ControlError(RuntimeError):
    """The fake Graph refused a control call; the message is its own."""


class FakeGraph:
    """One fake Graph on loopback, its certificate in `folder`. A context manager.

    `schemas` is what `python -m local.fake_graph.schemas` has made; without it bodies are not checked against
    Microsoft's types. It ends when this process does, unless it is `detached`.
    """

    def __init__(
        self,
        folder: Path,
        schemas: Path | None = None,
        port: int | None = None,
        *,
        log: Path | None = None,
        detached: bool = False,
    ) -> None:
        self.folder = folder
        self.schemas = schemas
        self.port = port or free_port()
        self.process = Process(
            "the fake Graph", self._command(), log=log or folder / "graph.log", folder=ROOT, detached=detached
        )
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(self.ca_file)

    @property
    def base_url(self) -> str:
        return f"https://{HOST}:{self.port}"

    @property
    def graph_url(self) -> str:
        return f"{self.base_url}/v1.0"

    @property
    def authority(self) -> str:
        return self.base_url

    @property
    def bot_url(self) -> str:
        """The Bot Framework connector's service URL."""
        return f"{self.base_url}/bot"

    @property
    def alerts_workflow(self) -> str:
        """The signed address of the workflow that is there from the start."""
        return address(self.base_url, ALERTS, ALERTS_SIGNATURE)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def launch(self) -> None:
        """Start it without waiting; `wait_ready()` waits."""
        write_certificates(self.folder)
        self.process.launch()

    def wait_ready(self) -> None:
        self.process.wait_ready(self._is_ready)

    def start(self) -> FakeGraph:
        """Start it and wait until it answers; ProcessError with the end of its log when it does not."""
        self.launch()
        self.wait_ready()
        return self

    def stop(self) -> None:
        self._session.close()
        self.process.stop()

    def __enter__(self) -> FakeGraph:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def notification_settings(self) -> dict[str, str]:
        """The product's settings for the hub and the receivers that stand beside this Graph."""
        hub = f"Endpoint={self.base_url.replace('https:', 'sb:')}{hubs.HUBS}"
        endpoints = {"fleet": {"url": f"{self.base_url}{receivers.RECEIVERS}fleet", "secret": receivers.SECRET}}
        return {
            "NOTIFICATION_HUB_CONNECTION": f"{hub};SharedAccessKeyName={hubs.KEY_NAME};SharedAccessKey={hubs.KEY}",
            "NOTIFICATION_HUB_NAME": hubs.HUB,
            "OUTGOING_WEBHOOKS": json.dumps(endpoints),
        }

    def control(self, method: str, path: str, json: Any = None) -> Any:
        """A control call: `path` after /_control/, ids in it percent-encoded. ControlError unless it succeeds."""
        response = self._session.request(
            method, f"{self.base_url}/_control/{path.lstrip('/')}", json=json, timeout=CONTROL_SECONDS
        )
        body = response.json()
        if response.status_code != 200:
            raise ControlError(f"{method} {path}: {body['error']}")
        return body

    def reset(self) -> None:
        """Back to the state after a start."""
        self.control("POST", "reset")

    def arrive_mail(self, user: str, mime: bytes) -> str:
        """A mail arrives in the user's inbox; its id."""
        body = {"user": user, "mime": base64.b64encode(mime).decode()}
        return str(self.control("POST", "mails", body)["id"])

    def arrive_chat_message(self, sender: str, content: str, *, content_type: str = "text", **place: Any) -> str:
        """Somebody posts; `place` is chat, or team, channel (and replyTo), and may hold mentions, attachments
        and hostedContents. The message's id."""
        body = {"from": sender, "body": {"contentType": content_type, "content": content}, **place}
        return str(self.control("POST", "chat-messages", body)["id"])

    def mailbox(self, user: str, folder: str | None = None) -> list[dict[str, Any]]:
        """All messages of the mailbox, or of one folder (inbox, drafts, sentitems, deleteditems, outbox)."""
        messages = self.control("GET", f"mailbox/{quote(user, safe='')}")
        return [message for message in messages if folder in (None, message["folder"])]

    def chat_messages(self, chat: str) -> list[dict[str, Any]]:
        """The chat's messages, oldest first."""
        return cast(list[dict[str, Any]], self.control("GET", f"chat/{quote(chat, safe='')}/messages"))

    def channel_messages(self, team: str, channel: str) -> list[dict[str, Any]]:
        """The channel's messages and replies, oldest first."""
        path = f"channel/{quote(team, safe='')}/{quote(channel, safe='')}/messages"
        return cast(list[dict[str, Any]], self.control("GET", path))

    def activity(self, user: str) -> list[dict[str, Any]]:
        """What the user's activity feed shows, oldest first; `times` is how often each was sent."""
        return cast(list[dict[str, Any]], self.control("GET", f"activity/{quote(user, safe='')}"))

    def subscriptions(self) -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], self.control("GET", "subscriptions"))

    def requests(self) -> list[dict[str, Any]]:
        """Requests with their answers, oldest first."""
        return cast(list[dict[str, Any]], self.control("GET", "requests"))

    def violations(self) -> list[dict[str, Any]]:
        """Where a client, or the fake itself, broke Graph's contract."""
        return cast(list[dict[str, Any]], self.control("GET", "violations"))

    def add_fault(
        self,
        kind: str,
        *,
        method: str | None = None,
        path: str | None = None,
        request_body: str | None = None,
        times: int = 1,
        **fault: Any,
    ) -> int:
        """The next `times` requests that match fail; `fault` may hold status, headers, body, seconds. Its id."""
        match = {"method": method, "path": path, "body": request_body}
        wanted = {"match": match, "times": times, "fault": {"kind": kind, **fault}}
        return int(self.control("POST", "faults", wanted)["id"])

    def clear_faults(self) -> None:
        self.control("DELETE", "faults")

    def deliver(self, **how: Any) -> list[dict[str, Any]]:
        """Deliver what is pending now (batch, duplicates, shuffle, forge): a list of {url, status, seconds, …}."""
        return cast(list[dict[str, Any]], self.control("POST", "deliver", {"mode": "now", **how}))

    def set_automatic_delivery(self, on: bool) -> None:
        self.control("POST", "auto-deliver", {"on": on})

    def put_event(self, user: str, **event: Any) -> str:
        """Add an event to the user's calendar, or change the one with this id; its id."""
        return str(self.control("POST", "events", {"user": user, "event": event})["id"])

    def put_contact(self, user: str, **contact: Any) -> str:
        """The same for a contact."""
        return str(self.control("POST", "contacts", {"user": user, "contact": contact})["id"])

    def put_drive_item(self, owner: str, **item: Any) -> str:
        """The same for an item of the drive of a user or team; `parent` is the id of its folder."""
        return str(self.control("POST", "drive-items", {"owner": owner, "item": item})["id"])

    def behave(self, **how: Any) -> None:
        """How deltas are answered from now on (local.fake_graph.delta.Behaviour); nothing given is the usual."""
        self.control("POST", "delta", how)

    def expire_deltas(self, **how: Any) -> int:
        """Forget all delta tokens that are out; `status` and `code` are how they are answered. How many there were."""
        return int(self.control("POST", "delta/expire", how)["expired"])

    def approve(self, user_code: str, user: str) -> None:
        """The user signs in with the code of a device-code flow."""
        self.control("POST", "device-code/approve", {"user_code": user_code, "user": user})

    def _is_ready(self) -> bool:
        try:
            response = self._session.get(f"{self.base_url}/_control/ready", timeout=5)
        except requests.ConnectionError:
            return False
        return response.status_code == 200

    def _command(self) -> list[str]:
        command = [
            sys.executable, "-m", "local.fake_graph", "--port", str(self.port),
            "--cert", str(self.folder.resolve() / "server.pem"), "--key", str(self.folder.resolve() / "server.key"),
        ]  # fmt: skip
        return command if self.schemas is None else [*command, "--schemas", str(self.schemas.resolve())]


def write_certificates(folder: Path) -> None:
    """ca.pem, server.pem and server.key for loopback, once per folder; two at once make them once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "certificates.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "ca.pem").exists():
            return
        authority = trustme.CA()
        certificate = authority.issue_cert(HOST, "localhost")
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (folder / "server.pem").write_bytes(chain)
        (folder / "server.key").touch(mode=0o600)
        (folder / "server.key").write_bytes(certificate.private_key_pem.bytes())
        # Last: its presence says that all three are whole.
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
