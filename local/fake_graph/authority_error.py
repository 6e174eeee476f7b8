"""An error of the authority, in the form of AADSTS."""

from __future__ import annotations

import uuid

from local.fake_graph.call import Answer, utc_now


class AuthorityError(Exception):
    """An OAuth error; `number` is the AADSTS code."""

    def __init__(self, error: str, number: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.error = error
        self.number = number
        self.message = message
        self.status = status

    def answer(self, correlation_id: str) -> Answer:
        trace_id = str(uuid.uuid4())
        now = utc_now().strftime("%Y-%m-%d %H:%M:%SZ")
        text = f"AADSTS{self.number}: {self.message} Trace ID: {trace_id} Correlation ID: {correlation_id}"
        body = {
            "error": self.error,
            "error_description": f"{text} Timestamp: {now}",
            "error_codes": [self.number],
            "timestamp": now,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
        }
        return Answer(self.status, body)
