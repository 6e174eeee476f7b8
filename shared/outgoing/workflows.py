"""Teams through a workflow: a card posted to the signed address of "When a Teams webhook request is received".

The address is a secret: whoever has it can post. It appears in no error; the workflow's name does.
Facts: https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import requests

from shared.graph.client import to_bytes
from shared.graph.errors import AnswerLost, GraphCall, GraphError
from shared.graph.exchange import error_of, exchange
from shared.graph.retry_after import retry_after
from shared.http_session import HttpSession

#: How an answer with a good status says that Teams refused, for example "… returned HTTP error 413 with ContextId …".
_TEAMS_STATUS = re.compile(r"HTTP error (\d{3})")
LONGEST_TEXT = 300


class WorkflowClient:
    """Starts workflows. `addresses` are the signed ones, by the workflow's name. Safe to share between threads."""

    def __init__(self, session: HttpSession, addresses: Mapping[str, str]) -> None:
        self._session = session
        self._addresses = dict(addresses)

    def has(self, name: str) -> bool:
        """Whether there is a workflow of this name."""
        return name in self._addresses

    def post(self, name: str, message: Mapping[str, Any]) -> str | None:
        """Start a workflow with a message; returns the id of its run where the answer names it.

        Taken is 202 without a body and nothing else: an error text under a good status is a GraphError with the status
        that it names, and any other answer is AnswerLost. Raises GraphFailure.
        """
        call = GraphCall("POST", f"workflow {name}", str(uuid.uuid4()), peer="the workflow")
        headers = {"Content-Type": "application/json", "x-ms-client-request-id": call.client_request_id}
        response = exchange(self._session, call, self._addresses[name], headers=headers, body=to_bytes(message))
        run_id = response.headers.get("x-ms-workflow-run-id")
        call.request_id = call.request_id or run_id
        if response.status_code == 202 and not response.content.strip():
            return run_id
        if 200 <= response.status_code < 400:
            raise _not_taken(response, call)
        raise error_of(response, call)


def _not_taken(response: requests.Response, call: GraphCall) -> GraphError | AnswerLost:
    text = " ".join(response.text[:LONGEST_TEXT].split())
    named = _TEAMS_STATUS.search(text)
    if named is None:
        return AnswerLost(f"{call} answered {response.status_code}, where 202 without a body was due", call=call)
    wait: timedelta | None = retry_after(response.headers)
    return GraphError(int(named[1]), (), text, call=call, retry_after=wait)
