"""Attaches files to a draft, each whole and once: small ones in a request, large ones by an upload session.

They are added in the payload's order, one after the other, so how many a draft has says which are there. Contents
are read in parts; of a large file no more than one chunk is in memory.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared.engine.errors import NetworkError, RejectedError
from shared.graph.errors import GraphError, UploadGone
from shared.graph.mail import MailClient, MailState
from shared.graph.uploads import UploadClient, UploadUrls
from shared.handlers.mail_attempt import MailAttempt
from shared.handlers.mail_message import build_file, build_upload
from shared.handlers.mail_payload import Attachment, Mail
from shared.handlers.services import BlobFacts, Blobs

#: Below this an attachment goes in one request; an upload session takes none below.
SINGLE_BYTES = 3_000_000
#: The most that Microsoft Graph can attach.
LARGEST_BYTES = 150 * 1024 * 1024
#: How Graph refuses an upload session for a file that is too small for one.
_TOO_SMALL = "ErrorAttachmentSizeShouldNotBeLessThanMinimumSize"


@dataclass(frozen=True, slots=True)
class File:
    """An attachment that is there to be read; `version` is what tells one content from another."""

    attachment: Attachment
    size: int
    version: str
    read: Callable[[int, int], bytes]

    def content(self) -> str:
        """All of it in base64."""
        return self.attachment.content_bytes or base64.b64encode(self.read(0, self.size)).decode()


class MailAttachments:
    """`blobs` is called when a payload names one."""

    def __init__(self, mail: MailClient, uploads: UploadClient, urls: UploadUrls, blobs: Callable[[], Blobs]) -> None:
        self._mail = mail
        self._uploads = uploads
        self._urls = urls
        self._blobs = blobs

    def open(self, mail: Mail) -> list[File]:
        """Look at all files, before anything is made. Raises RejectedError when one is missing or all are too large."""
        files = [self._open(attachment) for attachment in mail.attachments]
        total = sum(file.size for file in files)
        if total > LARGEST_BYTES:
            raise RejectedError(
                f"the attachments have {total} bytes together, and Microsoft Graph takes {LARGEST_BYTES}: send a link"
            )
        return files

    def attach(self, attempt: MailAttempt, mailbox: str, draft: MailState, files: list[File], present: int) -> None:
        """Add the files from number `present` on. Raises what MailAttempt.further raises, and GraphFailure."""
        for number in range(present, len(files)):
            if files[number].size < SINGLE_BYTES:
                self._add(attempt, mailbox, draft, files[number], number)
            else:
                self._upload_or_add(attempt, mailbox, draft, files[number], number)

    def count(self, attempt: MailAttempt, mailbox: str, draft: MailState) -> int:
        """How many of ours the draft has."""
        attempt.further(draft.id)
        return len(self._mail.attachments(mailbox, draft.id)) - draft.foreign_files

    def _open(self, attachment: Attachment) -> File:
        if attachment.blob is not None:
            blobs, name = self._blobs(), attachment.blob
            facts = blobs.facts(name)
            return File(attachment, facts.size, facts.etag, _reader(blobs, name, facts))
        content = base64.b64decode(attachment.content_bytes or "")
        return File(attachment, len(content), str(len(content)), lambda at, size: content[at : at + size])

    def _add(self, attempt: MailAttempt, mailbox: str, draft: MailState, file: File, number: int) -> None:
        try:
            self._post(attempt, mailbox, draft, file)
        except GraphError as error:
            if error.status != 413:
                raise
            # The border is not where the documents say: what is too large for a request goes the other way.
            self._upload(attempt, mailbox, draft, file, number)

    def _post(self, attempt: MailAttempt, mailbox: str, draft: MailState, file: File) -> None:
        attempt.further(draft.id)
        self._mail.add_attachment(mailbox, draft.id, build_file(file.attachment, file.content()))

    def _upload_or_add(self, attempt: MailAttempt, mailbox: str, draft: MailState, file: File, number: int) -> None:
        try:
            self._upload(attempt, mailbox, draft, file, number)
        except GraphError as error:
            if error.code != _TOO_SMALL:
                raise
            self._post(attempt, mailbox, draft, file)

    def _upload(self, attempt: MailAttempt, mailbox: str, draft: MailState, file: File, number: int) -> None:
        purpose = f"{attempt.job.id}/{draft.id}/{number}/{file.version}"
        url = self._urls.open(attempt.progress.get("upload"), purpose)
        if url is not None:
            try:
                attempt.further(draft.id)
                return self._send(attempt, draft, file, url, self._uploads.next_byte(url))
            except UploadGone:
                if self.count(attempt, mailbox, draft) > number:
                    return None  # its last answer was lost, and it is whole
        url = self._begin(attempt, mailbox, draft, file)
        attempt.keep(draft=draft.id, upload=self._urls.seal(url, purpose))
        try:
            self._send(attempt, draft, file, url, 0)
        except UploadGone as gone:
            if self.count(attempt, mailbox, draft) <= number:
                raise NetworkError("the upload session ended before the file was whole") from gone

    def _begin(self, attempt: MailAttempt, mailbox: str, draft: MailState, file: File) -> str:
        attempt.further(draft.id)
        item = build_upload(file.attachment, file.size)
        return self._uploads.check(self._mail.create_upload(mailbox, draft.id, item))

    def _send(self, attempt: MailAttempt, draft: MailState, file: File, url: str, start: int) -> None:
        self._uploads.send(url, file.read, file.size, start=start, before_each=lambda: attempt.further(draft.id))


def _reader(blobs: Blobs, name: str, facts: BlobFacts) -> Callable[[int, int], Any]:
    return lambda at, size: blobs.read(name, facts, at, size)
