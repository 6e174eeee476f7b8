"""Workflows (Power Automate): signed addresses that post the cards they are given to a chat or channel."""

from __future__ import annotations

import hmac
import json
import re
import uuid
from dataclasses import dataclass
from urllib.parse import quote, unquote

from local.fake_graph import teams
from local.fake_graph.call import Answer, Call, GraphError, Json, bad_request
from local.fake_graph.journal import Journal
from local.fake_graph.state import CHANNEL, TEAM, Bot, World

WORKFLOWS = "/workflows/"
MESSAGE_BYTES = 28 * 1024
CARD = "application/vnd.microsoft.card.adaptive"
#: The one that is there from the start.
ALERTS, ALERTS_SIGNATURE = "alerts", "local-signature-of-the-alerts-workflow"
_PATH = re.compile(r"(?P<name>[^/]+)/triggers/manual/paths/invoke")
_FLOW = Bot("workflow-bot", "Workflows")


@dataclass(frozen=True, slots=True)
class _Workflow:
    signature: str
    place: Json


class Workflows:
    """Runs a workflow at once: one message for each card, from a bot of its own."""

    def __init__(self, world: World, journal: Journal) -> None:
        self._world = world
        self._journal = journal
        self._workflows: dict[str, _Workflow] = {}
        self.reset()

    def reset(self) -> None:
        """Back to the one workflow that posts to the channel of alerts."""
        alerts = _Workflow(ALERTS_SIGNATURE, {"team": TEAM, "channel": CHANNEL})
        self._workflows = {ALERTS: alerts}

    def add(self, body: Json, base_url: str) -> str:
        """A new workflow {name, chat} or {name, team, channel}; returns its signed address."""
        place = {key: value for key, value in body.items() if key in ("chat", "team", "channel")}
        self._workflows[body["name"]] = _Workflow(uuid.uuid4().hex, place)
        return address(base_url, body["name"], self._workflows[body["name"]].signature)

    def answer(self, call: Call) -> Answer:
        try:
            return self._answer(call)
        except GraphError as error:
            if error.violation:
                message = f"{error.status} {error.code}: {error.message}"
                self._journal.violation(self._journal.requests[-1], "request", message)
            return Answer(error.status, {"error": {"code": error.code, "message": error.message}})

    def _answer(self, call: Call) -> Answer:
        found = _PATH.fullmatch(call.path.removeprefix(WORKFLOWS))
        workflow = self._workflows.get(unquote(found["name"])) if found else None
        if call.method != "POST" or workflow is None:
            raise GraphError(404, "WorkflowNotFound", "The workflow could not be found.")
        if not hmac.compare_digest(call.query.get("sig", "").encode(), workflow.signature.encode()):
            raise GraphError(401, "DirectApiAuthorizationRequired", "The request must be authenticated.")
        if len(call.raw) > MESSAGE_BYTES:
            raise GraphError(413, "RequestEntityTooLarge", "Request Entity too large.")
        for card in _cards(call):
            self._post(card, workflow.place, call.base_url)
        return Answer(202, None, {"x-ms-workflow-run-id": uuid.uuid4().hex})

    def _post(self, card: Json, place: Json, base_url: str) -> None:
        attachment = {"id": uuid.uuid4().hex, "contentType": CARD, "content": json.dumps(card, ensure_ascii=False)}
        content = f'<attachment id="{attachment["id"]}"></attachment>'
        message = {"body": {"contentType": "html", "content": content}, "attachments": [attachment]}
        if "chat" in place:
            teams.add_chat_message(self._world, place["chat"], _FLOW, message, base_url)
        else:
            teams.add_channel_message(self._world, place["team"], place["channel"], None, _FLOW, message, base_url)


def address(base_url: str, name: str, signature: str) -> str:
    """The signed address of a workflow."""
    path = f"{WORKFLOWS}{quote(name, safe='')}/triggers/manual/paths/invoke"
    return f"{base_url}{path}?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={quote(signature, safe='')}"


def _cards(call: Call) -> list[Json]:
    try:
        body = json.loads(call.raw)
    except ValueError:
        raise bad_request("The body is not JSON.", "InvalidRequestContent") from None
    attachments = body.get("attachments") if isinstance(body, dict) else None
    if not isinstance(attachments, list) or not attachments or body.get("type") != "message":
        raise bad_request("The body does not fit the trigger's schema.", "TriggerInputSchemaMismatch")
    for attachment in attachments:
        card = attachment.get("content")
        if attachment.get("contentType") != CARD or not isinstance(card, dict) or card.get("type") != "AdaptiveCard":
            raise bad_request("An attachment is no adaptive card.", "TriggerInputSchemaMismatch")
    return [attachment["content"] for attachment in attachments]
