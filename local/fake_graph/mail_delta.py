"""The deltas of mailboxes and of chats: folders, the messages of a folder, and what changed in all chats."""

from __future__ import annotations

from local.fake_graph import delta, mail, query
from local.fake_graph import message_form as form
from local.fake_graph.call import Answer, Call, Json, bad_request
from local.fake_graph.state import World

#: getAllMessages takes these comparisons only, joined by `and`.
WINDOW = ("lastModifiedDateTime gt ", "lastModifiedDateTime lt ")


def get_folder(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    folder = mail.folder_view(user, user.folder(call.params["folder"]))
    return Answer(200, query.select(folder, call.query.get("$select")))


def mail_folders_delta(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    views = {user.folder_id(folder): mail.folder_view(user, folder) for folder in user.folders}
    options = delta.options_of(world.deltas, call)
    whole = delta.DeltaSet(
        {key: view["displayName"] for key, view in views.items()},
        lambda key: query.select(views[key], options.get("$select")),
        f"users('{user.id}')/mailFolders",
    )
    return delta.page(world.deltas, call, whole, options, delta.page_size(call))


def messages_delta(world: World, call: Call) -> Answer:
    user = world.user(call.params["user"])
    folder = user.folder(call.params["folder"])
    options = delta.options_of(world.deltas, call)
    asked = Call(call.method, call.path, call.params, options, call.headers, b"", call.base_url)
    mails = {
        one.immutable_id if call.wants_immutable_ids else one.id: one
        for one in user.mails.values()
        if one.folder == folder
    }
    whole = delta.DeltaSet(
        {key: one.value["@odata.etag"] for key, one in mails.items()},
        lambda key: form.trim(form.full(user, mails[key], asked), asked),
        f"users('{user.id}')/mailFolders('{folder}')/messages",
    )
    return delta.page(world.deltas, call, whole, options, delta.page_size(call))


def user_messages(world: World, call: Call) -> Answer:
    """All messages of all chats that the user is in."""
    user = world.user(call.params["user"])
    chats = [chat for chat in world.chats.values() if user.id in chat.members]
    return _all_messages(call, [one.value for chat in chats for one in chat.messages.values()], "chats")


def team_messages(world: World, call: Call) -> Answer:
    """All messages and replies of all channels of the team."""
    channels = world.team(call.params["team"]).channels.values()
    return _all_messages(call, [one.value for channel in channels for one in channel.messages.values()], "channels")


def _all_messages(call: Call, messages: list[Json], context: str) -> Answer:
    if "$filter" in call.query:
        clauses = call.query["$filter"].split(" and ")
        if not all(clause.startswith(WINDOW) for clause in clauses):
            raise bad_request("getAllMessages is filtered by lastModifiedDateTime gt and lt only.")
        messages = list(filter(query.parse_filter(call.query["$filter"]), messages))
    top = query.number(call, "$top", 20, 1, 50)
    return Answer(200, query.page(call, messages, top, f"{context}/getAllMessages"))
