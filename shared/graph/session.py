"""The HTTP session for Graph and its authority."""

from __future__ import annotations

from shared.http_session import HttpSession


class GraphSession(HttpSession):
    """One per process, shared by all its threads."""
