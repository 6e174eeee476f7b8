"""A Microsoft Graph of our own on loopback: a separate process with an authority, mailboxes, chats and channels."""
