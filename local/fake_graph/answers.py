"""Drafts of replies and forwards, as Outlook makes them: in the original's conversation, with its text quoted."""

from __future__ import annotations

import copy
import html

from local.fake_graph import mail
from local.fake_graph import message_form as form
from local.fake_graph.call import Answer, Call, Json, bad_request
from local.fake_graph.state import Mail, User, World


def create_reply(world: World, call: Call) -> Answer:
    _, original = _original(world, call)
    return _answer(world, call, "RE: ", {"toRecipients": _answered(original)})


def create_reply_all(world: World, call: Call) -> Answer:
    user, original = _original(world, call)
    to = _others(user, [*_answered(original), *original.value["toRecipients"]])
    return _answer(
        world, call, "RE: ", {"toRecipients": to, "ccRecipients": _others(user, original.value["ccRecipients"])}
    )


def create_forward(world: World, call: Call) -> Answer:
    return _answer(world, call, "FW: ", {"toRecipients": call.body.get("toRecipients") or []})


def _original(world: World, call: Call) -> tuple[User, Mail]:
    user = world.user(call.params["user"])
    return user, user.mail(call.params["message"])


def _answer(world: World, call: Call, prefix: str, recipients: Json) -> Answer:
    user, original = _original(world, call)
    given = call.body.get("message") or {}
    if call.body.get("comment") is not None and given.get("body") is not None:
        raise bad_request("Specify either a comment or the body of the message, not both.", "ErrorInvalidRequest")
    if "singleValueExtendedProperties" in given:
        raise bad_request("Extended properties of a reply are set by a later update.", "ErrorInvalidRequest")
    made = form.new_mail(user, {"subject": _subject(prefix, original)} | recipients | given)
    if given.get("body") is None:
        made.value["body"] = {"contentType": "html", "content": _quoted(original, call.body.get("comment") or "")}
    made.value["conversationId"] = original.value["conversationId"]
    if prefix == "FW: ":
        made.attachments = copy.deepcopy(original.attachments)
    form.touch(made)
    user.mails[made.immutable_id] = made
    mail.publish(world, user, made, "created")
    return Answer(201, form.render(user, made, call, keep_headers=False))


def _answered(original: Mail) -> list[Json]:
    return original.value["replyTo"] or [original.value["from"]]


def _others(user: User, recipients: list[Json]) -> list[Json]:
    unique = {one["emailAddress"]["address"].lower(): one for one in reversed(recipients)}
    unique.pop(user.upn.lower(), None)
    return list(reversed(unique.values()))


def _subject(prefix: str, original: Mail) -> str:
    subject = str(original.value["subject"])
    return subject if subject.upper().startswith(prefix) else prefix + subject


def _quoted(original: Mail, comment: str) -> str:
    value = original.value
    body = value["body"]["content"]
    quoted = body if value["body"]["contentType"] == "html" else f"<pre>{html.escape(body)}</pre>"
    sender = html.escape(value["from"]["emailAddress"]["address"])
    return (
        f"<html><body><div>{html.escape(comment)}</div><hr><div><b>From:</b> {sender}<br>"
        f"<b>Sent:</b> {value['sentDateTime']}<br><b>Subject:</b> {html.escape(str(value['subject']))}</div>"
        f"<div>{quoted}</div></body></html>"
    )
