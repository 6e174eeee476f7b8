"""The four senders of Teams messages. Each delivers a job's message once, as far as its way lets one know.

account   a service account posts through Graph; before a second send, messages are read back for the job's mark
bot       the Bot Framework posts; the same read-back, as the application
workflow  a signed address is posted to; nothing can be read back, so that a lost answer is left to a person
activity  the activity feed; a repeat with the same chain id takes the place of the first
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from shared.engine.context import Context
from shared.engine.errors import RejectedError, UncertainError
from shared.engine.job import Job, effect_since
from shared.graph.activity import MOST_USERS, ActivityClient, chain_id_of
from shared.graph.bot import BotClient
from shared.graph.errors import GraphError
from shared.graph.teams import Place, TeamsClient, TooManyMessages
from shared.handlers.graph_errors import sending
from shared.handlers.html_text import plain_text
from shared.handlers.payload_fields import text_of
from shared.handlers.teams_bodies import account_message, bot_activity, content_html, feed_activity, workflow_message
from shared.handlers.teams_html import without_images
from shared.handlers.teams_marker import carries, is_marked

if TYPE_CHECKING:
    from shared.handlers.teams_payload import TeamsMessage
    from shared.outgoing.workflows import WorkflowClient

#: The database's clock and Teams' may differ by this much.
CLOCK_MARGIN = timedelta(minutes=5)
#: A link to the next page that Graph refuses itself; no right to read the place; no such place for Graph, as a bot's
#: chat with one person.
_UNREADABLE = (400, 403, 404)


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that is sent. `external_id` is unique everywhere; `message_id` is Teams' own, where it gave one."""

    sender: str | None
    external_id: str
    thread_id: str | None
    message_id: str | None = None
    web_url: str | None = None
    occurred_at: datetime | None = None
    read_back: bool = False
    marker_kept: bool | None = None


class TeamsSender(Protocol):
    def deliver(self, job: Job, payload: TeamsMessage, context: Context) -> Sent:
        """Send the message unless an earlier attempt has. Raises JobError, or GraphFailure of a harmless call."""
        ...


class AccountSender:
    """Posts as a service account."""

    def __init__(self, teams: TeamsClient, account: str | None) -> None:
        self._teams = teams
        self._account = account

    def deliver(self, job: Job, payload: TeamsMessage, context: Context) -> Sent:
        since, place = job.effect_since, payload.place
        message = self._sent_before(job, place, since) if since is not None else None
        read_back = message is not None
        if message is None:
            if since is not None:
                context.note_nothing_found()
            body = account_message(payload, job.effect_id)
            context.checkpoint()
            with sending():
                message = self._teams.post(place, body)
        return _sent(message, place, self._account, read_back=read_back, marker_kept=carries(message, job.effect_id))

    def _sent_before(self, job: Job, place: Place, since: datetime) -> dict[str, Any] | None:
        """The message that an earlier attempt has posted, if it has."""
        own = self._teams.own_account_id()
        for message in _recent(self._teams, place, since):
            if carries(message, job.effect_id) and sender_id(message) in (own, None):
                return message
        return None


class BotSender:
    """Posts as a bot; reads back as the application, since a bot cannot list messages."""

    def __init__(self, bot: BotClient, teams: TeamsClient) -> None:
        self._bot = bot
        self._teams = teams

    def deliver(self, job: Job, payload: TeamsMessage, context: Context) -> Sent:
        since, place = job.effect_since, payload.place
        if since is not None:
            if (found := self._sent_before(job, payload, since)) is not None:
                return _sent(found, place, self._bot.app_id, read_back=True, marker_kept=carries(found, job.effect_id))
            context.note_nothing_found()
        activity = bot_activity(payload, job.effect_id, self._members(payload, context))
        context.checkpoint()
        with sending():
            message_id = self._bot.post(place, activity)
        return _sent({"id": message_id}, place, self._bot.app_id)

    def _members(self, payload: TeamsMessage, context: Context) -> dict[int, str]:
        """The connector's ids of the people that the message mentions."""
        if payload.mentions:
            context.take_permits(len(payload.mentions))
        found = {}
        for mention in payload.mentions:
            try:
                found[mention.id] = self._bot.member(payload.place, mention.user_id or "").id
            except GraphError as error:
                if error.status != 404:
                    raise
                raise RejectedError(
                    f'mentions: the person of <at id="{mention.id}"> is not in this chat or team, and a bot can mention'
                    " its members only: add them, or leave the mention out"
                ) from error
        return found

    def _sent_before(self, job: Job, payload: TeamsMessage, since: datetime) -> dict[str, Any] | None:
        """The message that an earlier attempt has posted, if it has.

        By its mark; and where Teams has kept no mark of a bot's message, by its text.
        """
        text, same_text = plain_text(without_images(content_html(payload))), None
        for message in _recent(self._teams, payload.place, since, as_application=True):
            if _bot_id(message) != self._bot.app_id:
                continue
            if carries(message, job.effect_id):
                return message
            if text and not is_marked(message) and _text(message) == text:
                same_text = message
        return same_text


class WorkflowSender:
    """Starts a workflow, which posts a card. `resend_lost`: also when an earlier start may have worked."""

    def __init__(self, workflows: WorkflowClient, name: str, *, resend_lost: bool) -> None:
        self._workflows = workflows
        self._name = name
        self._resend_lost = resend_lost

    def deliver(self, job: Job, payload: TeamsMessage, context: Context) -> Sent:
        # A redrive is a person's word to send again: only this job's own attempts count.
        begun = effect_since(job.attempts) is not None and bool((job.progress or {}).get("starting"))
        if begun and not self._resend_lost:
            raise UncertainError(
                f"workflow {self._name} may have posted this already, and there is no way to ask it: look into the"
                " channel, and redrive the job if it is not there",
                is_final=True,
            )
        if not self._workflows.has(self._name):
            raise RejectedError(f"there is no workflow {self._name}: add it to TEAMS_WORKFLOWS")
        context.save(starting=True)
        with sending():
            run_id = self._workflows.post(self._name, workflow_message(payload, job.effect_id))
        context.note(workflow_run=run_id)
        return Sent(f"workflow {self._name}", f"workflow/{job.effect_id}", payload.target or None)


class ActivitySender:
    """Sends notifications to the activity feeds of people, a chat or a team."""

    def __init__(self, feed: ActivityClient) -> None:
        self._feed = feed

    def deliver(self, job: Job, payload: TeamsMessage, context: Context) -> Sent:
        activity = feed_activity(payload, chain_id_of(job.effect_id))
        context.checkpoint()
        if payload.chat_id is not None:
            self._feed.notify_chat(payload.chat_id, activity)
        elif payload.team_id is not None:
            self._feed.notify_team(payload.team_id, activity, payload.channel_id)
        elif len(payload.user_ids) == 1:
            self._feed.notify_user(payload.user_ids[0], activity)
        else:
            for start in range(0, len(payload.user_ids), MOST_USERS):
                self._feed.notify_users(payload.user_ids[start : start + MOST_USERS], activity)
        return Sent("activity feed", f"activity/{job.effect_id}", payload.target or None)


def _recent(
    teams: TeamsClient, place: Place, since: datetime, *, as_application: bool = False
) -> Iterator[dict[str, Any]]:
    """The place's messages since an attempt. Raises UncertainError where they cannot be read to the end."""
    try:
        yield from teams.recent(place, since - CLOCK_MARGIN, as_application=as_application)
    except TooManyMessages as error:
        raise UncertainError(f"cannot tell whether it was sent: {error}") from error
    except GraphError as error:
        if error.status not in _UNREADABLE:
            raise
        raise UncertainError(f"cannot tell whether it was sent, for it cannot be read back: {error}") from error


def sender_id(message: dict[str, Any]) -> str | None:
    """The object id of the person who wrote the message."""
    return _from(message, "user")


def _bot_id(message: dict[str, Any]) -> str | None:
    """The application id of the bot that wrote the message."""
    return _from(message, "application")


def _from(message: dict[str, Any], kind: str) -> str | None:
    sender = message.get("from")
    identity = sender.get(kind) if isinstance(sender, dict) else None
    return text_of(identity.get("id")) or None if isinstance(identity, dict) else None


def _text(message: dict[str, Any]) -> str:
    body = message.get("body")
    return plain_text(text_of(body.get("content"))) if isinstance(body, dict) else ""


def _sent(message: dict[str, Any], place: Place, sender: str | None, **more: Any) -> Sent:
    message_id = message["id"]
    return Sent(
        sender,
        place.external_id(message_id),
        place.thread_id(message_id),
        message_id,
        web_url=message.get("webUrl"),
        occurred_at=_moment(message.get("createdDateTime")),
        **more,
    )


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
