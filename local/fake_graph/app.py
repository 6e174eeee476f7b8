"""The front of the fake Graph: an ASGI app that journals, checks, authorises, and hands to the handlers."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote

import jwt
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local.fake_graph import (
    activity,
    answers,
    calendar,
    contacts,
    drive,
    mail,
    mail_delta,
    subscriptions,
    teams,
    uploads,
)
from local.fake_graph.authority import Authority
from local.fake_graph.bot import BOT, BotConnector
from local.fake_graph.call import Answer, Call, GraphError, Json, bad_request
from local.fake_graph.checks import Checks
from local.fake_graph.control import Control
from local.fake_graph.delivery import Deliverer
from local.fake_graph.faults import CARRIED_OUT, Fault, Faults
from local.fake_graph.hubs import HUBS, Hubs
from local.fake_graph.journal import Journal, parsed, readable
from local.fake_graph.limits import Limits
from local.fake_graph.operations import OPERATIONS, Operation, route
from local.fake_graph.receivers import RECEIVERS, Receivers
from local.fake_graph.rich import PUBLISHER_PATHS
from local.fake_graph.state import TENANT, World
from local.fake_graph.tokens import Token, read_access_token
from local.fake_graph.workflows import WORKFLOWS, Workflows

log = logging.getLogger(__name__)

Handler = Callable[[World, Call], Any]
#: Where the operations' handlers are, by the operation's name.
HANDLERS = (mail, answers, teams, activity, subscriptions, mail_delta, calendar, contacts, drive)


class Peer(Protocol):
    """A service beside Graph that the product talks to; it checks its requests itself."""

    def answer(self, call: Call) -> Answer: ...

    def reset(self) -> None: ...


IMPORT_ONLY = "Message POST is allowed in application-only context only for import purposes"
#: Graph takes JSON up to 4 MB; a draft with an attachment of 3 MB just fits.
REQUEST_BYTES = 4 * 1024 * 1024
ABORT = "local.fake_graph.abort"


class FakeGraphApp:
    """One tenant. `scope["extensions"][ABORT]` must cut the connection (server.py)."""

    def __init__(self, base_url: str, checks: Checks) -> None:
        self.base_url = base_url
        self.checks = checks
        self.world = World()
        self.journal = Journal()
        self.faults = Faults()
        self.limits = Limits()
        self.authority = Authority(self.world, base_url)
        self.deliverer = Deliverer(self.world, base_url)
        self.workflows = Workflows(self.world, self.journal)
        self.hubs = Hubs(base_url)
        self.receivers = Receivers()
        #: What is no part of Graph and stands beside it, by the beginning of its paths.
        self.peers: dict[str, Peer] = {
            BOT: BotConnector(self.world, self.journal, self.limits),
            WORKFLOWS: self.workflows,
            HUBS: self.hubs,
            RECEIVERS: self.receivers,
        }
        self.control = Control(self)
        self._handlers = {operation.name: _handler(operation.name) for operation in OPERATIONS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        request = Request(scope, receive)
        try:
            raw = await request.body()
        except ClientDisconnect:
            return
        path = cast(bytes, scope["raw_path"]).decode("ascii")
        answer = await self._answer(request, path, raw)
        if answer is None:
            scope["extensions"][ABORT]()
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        content = answer.body if isinstance(answer.body, bytes) else b""
        if answer.body is not None and not isinstance(answer.body, bytes):
            content = json.dumps(answer.body, ensure_ascii=False).encode()
        media_type = answer.content_type if answer.body is not None else None
        await Response(content, answer.status, answer.headers, media_type)(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.deliverer.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.deliverer.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, request: Request, path: str, raw: bytes) -> Answer | None:
        """The answer; None is to cut the connection."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = dict(parse_qsl(request.url.query, keep_blank_values=True))
        if path.startswith("/_control/"):
            return await self.control.answer(request.method, path, raw)
        content_type = headers.get("content-type", "")
        form = dict(parse_qsl(raw.decode())) if "x-www-form-urlencoded" in content_type else None
        body = readable(form) if form is not None else parsed(raw, content_type)
        entry = self.journal.open(
            request.method, unquote(path), query, _without_token(headers), body, request.url.query
        )
        fault = self.faults.take(request.method, unquote(path), raw)
        if fault is not None and fault.kind not in CARRIED_OUT:
            return self._broken(fault, request.method, path, headers, entry)
        call = Call(request.method, path, {}, query, headers, raw, self.base_url)
        peer = next((peer for prefix, peer in self.peers.items() if path.startswith(prefix)), None)
        if path.startswith("/v1.0/"):
            answer = await self._graph(call, entry)
        elif path in PUBLISHER_PATHS:
            answer = self.world.publisher.answer(path, self.base_url)
        elif path.startswith(uploads.PREFIX):
            call = Call(request.method, path, {}, query, headers, raw, self.base_url)
            try:
                answer = self._upload(call, entry)
            except uploads.CutError:
                self.journal.close(entry, None, "cut")
                return None
        elif peer is not None:
            answer = peer.answer(call)
        else:
            answer = self.authority.answer(request.method, path, query, form or {}, headers)
        if fault is not None and fault.kind == "lose-answer":
            self.journal.close(entry, answer, "lost")
            return None
        if fault is not None and fault.kind == "status-after":
            return self._broken(fault, request.method, path, headers, entry)
        self.journal.close(entry, answer)
        if fault is not None:
            # Carried out at once, answered late.
            await asyncio.sleep(fault.seconds)
        return answer

    async def _graph(self, call: Call, entry: Json) -> Answer:
        """One request to Graph through all checks; whatever breaks the contract is noted as a violation."""
        try:
            operation = self._route(call)
            call.bearer = self._authorise(call, operation)
            entry["headers"]["authorization"] = call.token.kind
            self.limits.check(operation.limit, call)
            self._read_body(call, operation)
            answer = await self._handle(operation, call)
        except GraphError as error:
            if error.violation:
                self.journal.violation(entry, "request", f"{error.status} {error.code}: {error.message}")
            answer = call.failure(error.status, error.code, error.message, error.headers)
        except Exception as error:
            # A defect of the fake: it must not pass for Graph's behaviour unseen.
            log.exception("%s %s failed", call.method, call.path)
            self.journal.violation(entry, "answer", f"the fake failed: {error!r}")
            answer = call.failure(500, "InternalServerError", "The fake Graph failed; see its log.")
        else:
            fault = operation.answer and self.checks.answer_fault(operation.answer, answer.body)
            if fault:
                self.journal.violation(entry, "answer", fault)
        answer.headers |= {
            "request-id": call.request_id,
            "client-request-id": call.client_request_id,
            "x-ms-ags-diagnostic": '{"ServerInfo":{"DataCenter":"Local","Slice":"E","Ring":"1","ScaleUnit":"000"}}',
        }
        if call.wants_immutable_ids and "user" in call.params:
            answer.headers["Preference-Applied"] = 'IdType="ImmutableId"'
        return answer

    def _upload(self, call: Call, entry: Json) -> Answer:
        """A request to an upload session: no token, and no type to check it against."""
        try:
            return self.world.uploads.answer(call.method, unquote(call.path), call)
        except GraphError as error:
            if error.violation:
                self.journal.violation(entry, "request", f"{error.status} {error.code}: {error.message}")
            return call.failure(error.status, error.code, error.message, error.headers)

    def _route(self, call: Call) -> Operation:
        found = route(call.method, call.path.removeprefix("/v1.0"))
        if isinstance(found, list):
            if found:
                raise GraphError(
                    405, "Request_BadRequest", f"The method {call.method} is not allowed here.", violation=True,
                    headers={"Allow": ", ".join(sorted(set(found)))},
                )  # fmt: skip
            segment = call.path.rpartition("/")[2]
            raise GraphError(404, "BadRequest", f"Resource not found for the segment '{segment}'.", violation=True)
        operation, call.params = found
        user = self.world.find_user(call.params.get("user", ""))
        if user is not None:
            # One mailbox, however it is named.
            call.params["user"] = user.id
        for option in call.query:
            if not operation.allows(option):
                raise bad_request(f"The query parameter '{option}' is not supported.")
        return operation

    def _authorise(self, call: Call, operation: Operation) -> Token:
        scheme, _, text = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise GraphError(401, "InvalidAuthenticationToken", "Access token is empty.", violation=True)
        try:
            token = read_access_token(text)
        except jwt.InvalidTokenError:
            raise GraphError(
                401, "InvalidAuthenticationToken", "JWT validation failed: the token is malformed.", violation=True
            ) from None
        if token.expires_at < time.time() or token.issued_at < self.world.tokens_valid_from:
            raise GraphError(
                401, "InvalidAuthenticationToken", "Lifetime validation failed, the token is expired.",
                headers={"WWW-Authenticate": f'Bearer realm="", authorization_uri="{self.base_url}/{TENANT}"'},
            )  # fmt: skip
        required = self.world.challenges.get(token.subject, 0)
        if token.required_nbf < required:
            raise self._challenge(required)
        self._permit(token, operation)
        return token

    def _permit(self, token: Token, operation: Operation) -> None:
        allowed = operation.delegated if token.is_user else operation.application
        if allowed is None:
            raise GraphError(401, "Unauthorized", IMPORT_ONLY, violation=True)
        if allowed and not token.scopes.intersection(allowed):
            code = "ErrorAccessDenied" if operation.template.startswith("/users") else "Forbidden"
            text = f"Missing scope permissions on the request. API requires one of '{', '.join(allowed)}'."
            # Where nothing at all is granted, that is the tenant's doing and no client's mistake.
            raise GraphError(403, code, text, violation=bool(token.scopes))

    def _challenge(self, required: int) -> GraphError:
        claims = {"access_token": {"nbf": {"essential": True, "value": str(required)}}}
        encoded = base64.b64encode(json.dumps(claims).encode()).decode()
        value = (
            f'Bearer realm="", authorization_uri="{self.base_url}/common/oauth2/authorize", '
            f'error="insufficient_claims", claims="{encoded}"'
        )
        message = "Continuous access evaluation resulted in challenge with result: InteractionRequired."
        return GraphError(401, "InvalidAuthenticationToken", message, headers={"WWW-Authenticate": value})

    def _read_body(self, call: Call, operation: Operation) -> None:
        if len(call.raw) > REQUEST_BYTES:
            raise GraphError(413, "RequestEntityTooLarge", "The request is larger than 4 MB.")
        if operation.body is None:
            if call.raw not in (b"", b"{}"):
                raise bad_request("This request takes no body.")
            return
        content_type = call.headers.get("content-type", "").partition(";")[0].strip()
        if operation.name == "send_mail" and content_type == "text/plain":
            call.body = call.raw
            return
        if content_type != "application/json":
            raise GraphError(
                415, "RequestBodyRead", f"The content type '{content_type}' is not supported.", violation=True
            )
        try:
            call.body = self.checks.action_body(operation.body, json.loads(call.raw))
        except ValueError:
            raise bad_request("Unable to read JSON request payload.") from None
        fault = self.checks.request_fault(operation.name, operation.body, call.body)
        if fault:
            raise bad_request(fault)

    async def _handle(self, operation: Operation, call: Call) -> Answer:
        handler = self._handlers[operation.name]
        mailbox = call.params.get("user")
        if mailbox is None or operation.limit not in ("mailbox", "mail_send"):
            return await _run(handler, self.world, call)
        self.limits.enter(mailbox)
        try:
            if self.limits.on and self.limits.mailbox_seconds:
                await asyncio.sleep(self.limits.mailbox_seconds)
            return await _run(handler, self.world, call)
        finally:
            self.limits.leave(mailbox)

    def _broken(self, fault: Fault, method: str, path: str, headers: dict[str, str], entry: Json) -> Answer | None:
        """What a request that meets a fault gets, carried out or not."""
        call = Call(method, path, {}, {}, headers, b"", self.base_url)
        answer = self._challenged(call) if fault.kind == "claims-challenge" else fault_answer(fault, call)
        if answer is not None:
            answer.headers = {"request-id": call.request_id, "client-request-id": call.client_request_id} | (
                answer.headers
            )
        self.journal.close(entry, answer, "cut" if answer is None else "fault")
        return answer

    def _challenged(self, call: Call) -> Answer:
        """From now on this subject's tokens must have been asked for with the claims of this answer."""
        text = call.headers.get("authorization", "").partition(" ")[2]
        try:
            subject = read_access_token(text).subject
        except jwt.InvalidTokenError:
            return call.failure(401, "InvalidAuthenticationToken", "Access token is empty.")
        required = max(int(time.time()), self.world.challenges.get(subject, 0) + 1)
        self.world.challenges[subject] = required
        error = self._challenge(required)
        return call.failure(error.status, error.code, error.message, error.headers)


def fault_answer(fault: Fault, call: Call) -> Answer | None:
    """The answer of a fault of the kinds status, status-after, html, bad-json and empty; None for reset."""
    match fault.kind:
        case "status" | "status-after":
            answer = call.failure(fault.status, fault.code, f"The fault {fault.id} asked for this answer.")
            if fault.payload is not None:
                answer.body = fault.payload if isinstance(fault.payload, dict) else str(fault.payload).encode()
        case "html":
            text = fault.payload or f"<html><head><title>{fault.status}</title></head><body>Gateway</body></html>"
            answer = Answer(fault.status, str(text).encode(), content_type="text/html")
        case "bad-json":
            answer = Answer(fault.status, str(fault.payload or '{"value": [').encode())
        case "empty":
            answer = Answer(fault.status, None)
        case _:
            return None
    answer.headers |= fault.headers
    return answer


async def _run(handler: Handler, world: World, call: Call) -> Answer:
    result = handler(world, call)
    return cast(Answer, await result if inspect.isawaitable(result) else result)


def _handler(name: str) -> Handler:
    for module in HANDLERS:
        if hasattr(module, name):
            return cast(Handler, getattr(module, name))
    raise LookupError(f"no handler for the operation {name}")


def _without_token(headers: dict[str, str]) -> dict[str, str]:
    """Headers for the journal: of a token only that there was one; its kind follows when it is known."""
    return {name: "bearer" if name == "authorization" else value for name, value in headers.items()}
