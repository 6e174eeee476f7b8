"""What of an answer only some may read: decided here for each field, and applied to every answer.

Content (what a message says, and to whom) is an Admin's. Ids, classes, statuses and Graph's request ids are
everybody's: with them somebody finds out what happened. Error texts are shown without addresses; what an unknown
exception says may quote anything, so it takes the role Operator. docs/reference/http.md has the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from shared.access import Role
from shared.engine.job import ErrorClass

MASK = "•••"
M = TypeVar("M", bound=BaseModel)

#: Keys of results, progress and attempt details under which no content stands; other keys keep their place only.
VISIBLE = frozenset((
    # requests to Graph and others
    "method", "path", "status", "request_id", "client_request_id", "graph_calls", "failed_call", "code", "failure",
    "exception", "peer", "workflow_run",
    # what became of it, and the ids that it has there
    "outcome", "sender", "channel", "next", "message_type", "message_id", "internet_message_id", "sending", "event_id",
    "marker_kept", "read_back", "sent_at", "found_nothing", "confirmed", "starting", "noted",
    # counts
    "jobs", "created", "updated", "deleted", "pages", "page",
))  # fmt: skip
#: A value under such a key is an id, a word or a number; a sentence is not.
_WORD = re.compile(r"\S{0,300}")
#: Chats have ids of this form, which are no addresses.
_ADDRESS = re.compile(r"""[^\s<>"'(),;:=]+@(?!thread\.|unq\.)[\w-]+(?:\.[\w-]+)+""")


def hide(value: Any) -> Any:
    """The same form with every value hidden."""
    if isinstance(value, Mapping):
        return {name: hide(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [hide(inner) for inner in value]
    return MASK if value is not None else None


def keep_ids(value: Any) -> Any:
    """The same form with every value hidden but ids, statuses and counts."""
    if isinstance(value, Mapping):
        return {name: _kept(inner) if name in VISIBLE else hide(inner) for name, inner in value.items()}
    return hide(value)


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return keep_ids(value)
    if isinstance(value, list):
        return [_kept(inner) for inner in value]
    return hide(value) if isinstance(value, str) and not _WORD.fullmatch(value) else value


def without_addresses(value: Any) -> Any:
    """Texts with mail addresses hidden, however deep they stand."""
    if isinstance(value, Mapping):
        return {name: without_addresses(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_addresses(inner) for inner in value]
    return _ADDRESS.sub(MASK, value) if isinstance(value, str) else value


#: From a value, what it stands in, and the role of who asks, to what is shown. Admins see everything.
Treatment = Callable[[Any, Any, Role], Any]


def _hidden(value: Any, _model: Any, _role: Role) -> Any:
    return hide(value)


def _nothing(_value: Any, _model: Any, _role: Role) -> Any:
    return None


def _ids(value: Any, _model: Any, _role: Role) -> Any:
    return keep_ids(value)


def _told(value: Any, _model: Any, _role: Role) -> Any:
    return without_addresses(value)


def _error(value: Any, model: Any, role: Role) -> Any:
    """An error's text. Of an unknown one a Reader is told the exception's name."""
    if value is not None and role < Role.OPERATOR and model.error_class == ErrorClass.UNKNOWN:
        return f"{value.partition(':')[0]}: {MASK}" if re.match(r"\w+:", value) else MASK
    return without_addresses(value)


def _alert(value: Any, _model: Any, role: Role) -> Any:
    if role < Role.OPERATOR and value.get("errorClass") == ErrorClass.UNKNOWN:
        value = {name: MASK if name == "lastMessage" else inner for name, inner in value.items()}
    return without_addresses(value)


def _diagnosis(value: Any, model: Any, _role: Role) -> Any:
    """Without addresses, but for those of the service accounts that it names: they are settings."""
    if isinstance(value, list):
        return [_diagnosis(one, model, _role) for one in value]
    return _ADDRESS.sub(lambda found: found[0] if found[0] in model.accounts else MASK, value)


#: "Model.field" of everything that may hold content.
FIELDS: Mapping[str, Treatment] = {
    "JobDetail.payload": _hidden,
    "JobDetail.payload_masked": lambda *_: True,
    "JobDetail.result": _ids,
    "JobDetail.progress": _ids,
    "JobDetail.error_message": _error,
    "JobSummary.error_message": _error,
    "Diagnosis.headline": _diagnosis,
    "Diagnosis.why": _diagnosis,
    "Diagnosis.tell": _diagnosis,
    "Step.text": _told,
    "Step.payload": _nothing,
    "Attempt.details": _ids,
    "Attempt.message": _error,
    "DeliveryFailure.recipient": _hidden,
    "DeliveryFailure.diagnostic": _told,
    "DeadLetter.body": _hidden,
    "DeadLetter.text": _hidden,
    "DeadLetter.error_message": _error,
    "DeadLetterGroup.pattern": _error,
    "DeadLetterGroup.example_message": _error,
    "Schedule.payload": _nothing,
    "Schedule.problem": _told,
    "Alert.details": _alert,
    "Subscription.problem": _told,
    "Sync.error_message": _told,
}


def masked(answer: M, role: Role | None) -> M:
    """The answer as this role may read it."""
    return answer if role is Role.ADMIN else _masked(answer, role or Role.READER)


def _masked(answer: M, role: Role) -> M:
    changed = {}
    for name in type(answer).model_fields:
        value = getattr(answer, name)
        treatment = FIELDS.get(f"{type(answer).__name__}.{name}")
        shown = treatment(value, answer, role) if treatment is not None else _inside(value, role)
        if shown is not value:
            changed[name] = shown
    return answer.model_copy(update=changed) if changed else answer


def _inside(value: Any, role: Role) -> Any:
    if isinstance(value, BaseModel):
        return _masked(value, role)
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return [_masked(one, role) for one in value]
    return value
