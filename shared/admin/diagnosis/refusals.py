"""What a refusal by Graph means: by its status, its code and words, and by what was asked (docs/reference/graph.md)."""

from __future__ import annotations

from dataclasses import dataclass

from shared.admin.diagnosis.circumstances import Circumstances
from shared.admin.diagnosis.effect import sender
from shared.admin.diagnosis.words import failed_call, mailbox, place, status, step
from shared.admin.models.diagnosis import Action, Step
from shared.engine.job import Attempt, JobRecord

_MEMBERSHIP = ("not a member", "notinroster", "not in the roster", "aclcheckfailed", "botnotinconversationroster",
               "not part of", "notmember", "not a participant")  # fmt: skip
_LICENCE = ("license", "licence")
_POLICY = ("erroraccessdenied", "access to odata is disabled", "applicationaccesspolicy", "application access policy")
_CONSENT = ("authorization_requestdenied", "missing role permissions", "missing scope permissions",
            "insufficient privileges", "insufficientprivileges", "insufficient_scope", "invalid_scope")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refusal:
    """`short` ends a headline, `why` are sentences, `steps` come before the redrive."""

    short: str
    why: tuple[str, ...]
    steps: tuple[Step, ...]
    accounts: tuple[str, ...] = ()


def of_identity(job: JobRecord, attempt: Attempt, around: Circumstances) -> Refusal:
    """A 401 or 403: who lacks what."""
    said = f"{attempt.details.get('code', '')} {attempt.message or ''}".lower()
    account = account_of(job, around)
    accounts = (account,) if account is not None else ()
    who = account or {"bot": "the bot", "outlook-outbound": "the application"}.get(
        sender(job) or job.queue, "the account"
    )
    if status(attempt) == 401:
        return _token_refused(account, accounts)
    if any(word in said for word in _LICENCE):
        text = f"{who} has no licence for Teams"
        mend = step("Give the account a licence that includes Teams (Microsoft 365 admin centre), then redrive.")
        return Refusal(text, ("Graph answered 403 for want of a licence.",), (mend,), accounts)
    if any(word in said for word in _MEMBERSHIP):
        return _no_member(job, who, accounts)
    if job.queue in ("outlook-outbound", "outlook-inbound") and any(word in said for word in _POLICY):
        return _mailbox_closed(job)
    if any(word in said for word in _CONSENT):
        return _no_consent(attempt, accounts)
    if job.queue == "teams-outbound" and sender(job) in ("account", "bot", None) and place(job):
        member = _no_member(job, who, accounts)
        why = ("Graph answered 403 and did not say why. Most often the sender is not in the chat or team.",)
        doctor = step("If it is in there, look for a permission that lacks.", Action.DOCTOR)
        return Refusal("Graph refused it (403)", why, (*member.steps, doctor), accounts)
    return Refusal("Graph refused it (403)", ("Graph answered 403: who asked may not do this.",),
                   (step("See whether a permission lacks.", Action.DOCTOR),), accounts)  # fmt: skip


def account_of(job: JobRecord, around: Circumstances) -> str | None:
    """The service account that sends it, where one does."""
    if job.queue != "teams-outbound" or sender(job) not in ("account", None):
        return None
    chosen = job.payload.get("sendAs")
    known = {name.lower(): name for name in around.accounts}
    if isinstance(chosen, str):
        return known.get(chosen.lower())
    return around.accounts[0] if around.accounts else None


def _token_refused(account: str | None, accounts: tuple[str, ...]) -> Refusal:
    steps = [step("See which identity fails, and what mends it.", Action.DOCTOR)]
    if account is not None:
        steps.append(step("Sign the service account in again.", Action.SIGN_IN, account))
    who = account or "the application"
    return Refusal(
        f"Graph does not take the token of {who} (401)", ("A new token was refused too.",), tuple(steps), accounts
    )


def _no_member(job: JobRecord, who: str, accounts: tuple[str, ...]) -> Refusal:
    where = place(job) or "the chat or team"
    kind = "team" if "channelId" in job.payload else "chat"
    text = f"{who} is not a member of {where}"
    why = f"Who posts must be in the {kind}; no permission of the application makes up for that."
    mend = step(f"Have a member of the {kind} add it there (in Teams: {_add(job, kind)}), then redrive.")
    return Refusal(text, (why,), (mend,), accounts)


def _add(job: JobRecord, kind: str) -> str:
    return "Apps, add the bot" if sender(job) == "bot" else f"Add {'member' if kind == 'team' else 'people'}"


def _mailbox_closed(job: JobRecord) -> Refusal:
    whose = mailbox(job) or "the mailbox"
    text = f"the application may not use the mailbox {whose}"
    why = "Exchange refuses it: an application access policy, or the scope of its role, leaves this mailbox out."
    mend = step(
        "Have the Exchange administrator add it to the policy's group (it takes more than an hour), then redrive."
    )
    return Refusal(text, (why,), (mend,))


def _no_consent(attempt: Attempt, accounts: tuple[str, ...]) -> Refusal:
    call = failed_call(attempt)
    asked = f" for {call['method']} {call['path']}" if call.get("method") and call.get("path") else ""
    mend = step(
        "See which permission lacks; an administrator of Entra ID consents to it. Then redrive.",
        Action.DOCTOR,
    )
    return Refusal(
        "a permission lacks",
        (f"Graph answered 403: nobody has consented to a permission that it needs{asked}.",),
        (mend,),
        accounts,
    )


def of_request(job: JobRecord, attempt: Attempt) -> Refusal:
    """A 404, 413 or another refusal of what was asked; or our own check's."""
    found, where = status(attempt), place(job)
    if found is None:
        return Refusal(
            "it cannot be sent as it is", (f"Our own check refused it before anything was sent: {attempt.message}",), ()
        )
    if found in (404, 410) and where is not None:
        missing = where if failed_call(attempt).get("method") in ("POST", "GET") else "what it names"
        return Refusal(
            f"{missing} does not exist",
            (f"Graph answered {found}: it does not know {missing}, or may not see it.",),
            (),
        )
    if found == 413:
        return Refusal(
            "it is too large for Graph (413)",
            ("Graph answered 413: the message with its attachments is too large.",),
            (),
        )
    return Refusal(f"Graph refused it ({found})", (f"{attempt.message}",), ())
