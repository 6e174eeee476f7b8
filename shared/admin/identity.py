"""What the route that says who asks does."""

from __future__ import annotations

from shared.admin.models.identity import Identity
from shared.admin.ports import Call


def identity(call: Call) -> Identity:
    """No caller without a role comes here."""
    who = call.who
    return Identity.model_validate({"name": who.name, "kind": who.kind, "role": who.role.title if who.role else None})
