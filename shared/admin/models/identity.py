"""Who asks."""

from __future__ import annotations

from typing import Literal

from shared.admin.models.base import Model


class Identity(Model):
    """Who asks, and what they may. `kind` is how they proved it: key, token, app-service."""

    name: str
    kind: str
    role: Literal["Reader", "Operator", "Admin"]
