"""The fake Graph as a process, its control API's odds and ends, and the making of the schemas."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.fake_graph import schemas
from local.fake_graph.process import ControlError, FakeGraph, write_certificates
from local.fake_graph.state import CHANNEL, CHAT, TEAM
from local.process import ProcessError, wait_until
from tests.fake_graph.conftest import SCHEMAS, Client, project_file


def test_it_starts_with_the_defaults_and_stops(tmp_path: Path) -> None:
    with FakeGraph(tmp_path) as graph:
        assert graph.control("GET", "ready") == {"ready": True}
        assert graph.chat_messages(CHAT) == []
        assert graph.channel_messages(TEAM, CHANNEL) == []
        assert graph.mailbox("queue@fleet.example") == []
        assert graph.graph_url == f"{graph.authority}/v1.0"
    assert not graph.process.is_running()


def test_it_is_served_over_tls_only_to_those_who_trust_its_authority(graph: FakeGraph) -> None:
    address = ("127.0.0.1", graph.port)
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(address, ssl.create_default_context())
    connect(address, ssl.create_default_context(cafile=str(graph.ca_file)))


def connect(address: tuple[str, int], context: ssl.SSLContext) -> None:
    with socket.create_connection(address) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1"):
        pass


def test_certificates_are_made_once(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    first = (tmp_path / "server.pem").read_bytes()
    write_certificates(tmp_path)
    assert (tmp_path / "server.pem").read_bytes() == first
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600


def test_missing_schemas_are_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"local\.fake_graph\.schemas"):
        FakeGraph(tmp_path / "graph", tmp_path / "none").start()


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import signal, sys\nfrom pathlib import Path\nfrom local.fake_graph.process import FakeGraph\n"
        "graph = FakeGraph(Path(sys.argv[1])).start()\n"
        "print(graph.process.identity.pid, flush=True)\nsignal.pause()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=project_file(""), text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert wait_until(lambda: not is_running(pid), 10)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_reset_forgets_everything(graph: FakeGraph, user: Client) -> None:
    graph.add_fault("status", method="DELETE")
    user.post(f"/chats/{CHAT}/messages", {"body": {"content": "x"}})
    user.get("/planets")
    graph.reset()
    assert graph.chat_messages(CHAT) == []
    assert graph.violations() == []
    assert graph.requests() == []
    assert graph.control("GET", "faults") == []


def test_control_calls_that_make_no_sense_say_why(graph: FakeGraph) -> None:
    for method, path, body in (
        ("GET", "nothing", None),
        ("POST", "chats", {"id": "x"}),
        ("POST", "device-code/approve", {"user_code": "x", "user": "queue@fleet.example"}),
        ("POST", "mails", {"user": "queue@fleet.example", "mime": "%"}),
        ("POST", "mails", {"user": "nobody", "mime": ""}),
        ("POST", "deliver", {"mode": "later"}),
        ("GET", "mailbox/nobody", None),
    ):
        with pytest.raises(ControlError, match=r"."):
            graph.control(method, path, body)


def test_users_and_chats_are_added(graph: FakeGraph, user: Client) -> None:
    added = {"id": "u-9", "userPrincipalName": "new@fleet.example", "displayName": "New"}
    graph.control("POST", "users", added)
    graph.control("POST", "chats", {"id": "19:n@thread.v2", "topic": "N", "members": ["u-9", "queue@fleet.example"]})
    assert user.post("/chats/19:n@thread.v2/messages", {"body": {"content": "x"}}).status_code == 201
    graph.arrive_chat_message("u-9", "y", chat="19:n@thread.v2")
    assert len(graph.chat_messages("19:n@thread.v2")) == 2


def test_the_schemas_are_made_once_and_are_quick_to_load() -> None:
    schemas.make(SCHEMAS)
    assert schemas.make(SCHEMAS) is False
    file = SCHEMAS / "schemas.json"
    started = time.process_time()
    definitions = json.loads(file.read_text())["definitions"]
    assert time.process_time() - started < 0.5
    assert not [name for name in definitions if "<" in name]
    assert file.stat().st_size < 600_000


def test_a_transformed_type_is_strict_and_takes_null() -> None:
    types = {
        "Base": {"type": "object", "properties": {"a": {"$ref": "#/definitions/NullableOption%3Cstring%3E"}},
                 "additionalProperties": False},
        "Near": {"type": "object", "properties": {"description": {"$ref": "#/definitions/Kind", "description": "x"}},
                 "additionalProperties": False},
        "Kind": {"type": "string", "enum": ["one", "two"]},
        "NullableOption<string>": {"type": ["string", "null"]},
    }  # fmt: skip
    made = schemas.transform(types, "export interface Near extends Base {\n}\n")
    assert made["Base"] == {"anyOf": [{"$ref": "#/definitions/Base.exact"}, {"$ref": "#/definitions/Near"}]}
    assert made["Base.exact"]["properties"]["a"] == {"type": ["string", "null"]}
    assert made["Near"]["properties"]["description"] == {"$ref": "#/definitions/Kind"}
    assert made["Near"]["properties"]["@odata.type"] == {"const": "#microsoft.graph.near"}
    assert made["Kind"] == {"type": "string", "pattern": "^(?i:one|two)$"}


def test_an_interrupt_for_the_caller_does_not_reach_it(graph: FakeGraph) -> None:
    identity = graph.process.identity
    assert identity is not None
    assert os.getsid(identity.pid) != os.getsid(0)
