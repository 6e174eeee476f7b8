"""Resource data: what was encrypted for us opens, what was touched on its way never does."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st

from local.certificate import as_setting, self_signed
from shared.graph.rich import (
    BrokenSignatureError,
    ContentError,
    EncryptionCertificates,
    UnknownCertificateError,
    UnreadableContentError,
    read_certificate,
)
from tests.unit.webhooks.vouching import certificate, encrypted

MESSAGE = {"id": "17", "body": {"content": "Tür 7 🚚\u2028"}, "etag": "1"}
OURS = EncryptionCertificates(certificate("current"), certificate("previous"))


def test_what_was_encrypted_for_us_opens_under_the_current_and_the_previous_certificate() -> None:
    for name in ("current", "previous"):
        assert OURS.decrypt(encrypted(MESSAGE, name)) == MESSAGE


def test_new_subscriptions_name_the_current_certificate_only() -> None:
    current = OURS.current()
    assert current is not None
    assert current == certificate("current").public
    assert len(current.id) <= 128
    shown = x509.load_der_x509_certificate(base64.b64decode(current.base64))
    assert shown.public_key() == certificate("current").private_key.public_key()
    assert EncryptionCertificates().current() is None


def test_a_certificate_that_is_none_of_ours_is_named() -> None:
    content = encrypted(MESSAGE, "forgotten")
    with pytest.raises(UnknownCertificateError) as caught:
        OURS.decrypt(content)
    assert caught.value.certificate_id == content["encryptionCertificateId"]


def test_a_wrong_signature_is_told_before_anything_is_decrypted() -> None:
    content = encrypted(MESSAGE) | {"data": base64.b64encode(b"not even whole blocks").decode()}
    with pytest.raises(BrokenSignatureError):
        OURS.decrypt(content)


def test_a_key_that_was_encrypted_with_another_digest_does_not_open() -> None:
    """OAEP with SHA-256 is the usual mistake; Graph uses SHA-1."""
    sha256 = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    data_key = certificate("current").private_key.public_key().encrypt(bytes(32), sha256)
    with pytest.raises(UnreadableContentError):
        OURS.decrypt(encrypted(MESSAGE) | {"dataKey": base64.b64encode(data_key).decode()})


def test_a_symmetric_key_of_another_length_does_not_open() -> None:
    sha1 = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    data_key = certificate("current").private_key.public_key().encrypt(bytes(16), sha1)
    with pytest.raises(UnreadableContentError, match="16 bytes"):
        OURS.decrypt(encrypted(MESSAGE) | {"dataKey": base64.b64encode(data_key).decode()})


@pytest.mark.parametrize("resource", [[], "text", 5, None], ids=repr)
def test_signed_data_that_is_no_object_is_unreadable(resource: Any) -> None:
    with pytest.raises(UnreadableContentError):
        OURS.decrypt(encrypted(resource))


@pytest.mark.parametrize("name", ["data", "dataKey", "dataSignature", "encryptionCertificateId"])
@pytest.mark.parametrize("value", [None, 5, [], "", "@@@", "é", "absent"], ids=repr)
def test_a_missing_or_odd_part_is_a_content_error(name: str, value: Any) -> None:
    content = encrypted(MESSAGE) | {name: value}
    if value == "absent":
        del content[name]
    with pytest.raises(ContentError):
        OURS.decrypt(content)


@pytest.mark.parametrize("content", [None, 5, "x", [], {}], ids=repr)
def test_encrypted_content_of_another_form_is_a_content_error(content: Any) -> None:
    with pytest.raises(ContentError):
        OURS.decrypt(content)


GOOD = encrypted(MESSAGE)


@settings(max_examples=150)
@given(
    name=st.sampled_from(["data", "dataKey", "dataSignature"]),
    place=st.integers(0, 10_000),
    how=st.sampled_from(["flip", "drop", "insert", "cut"]),
    byte=st.integers(1, 255),
)
def test_no_corruption_is_ever_accepted(name: str, place: int, how: str, byte: int) -> None:
    raw = bytearray(base64.b64decode(GOOD[name]))
    at = place % len(raw)
    if how == "flip":
        raw[at] ^= byte
    elif how == "drop":
        del raw[at]
    elif how == "insert":
        raw.insert(at, byte)
    else:
        del raw[at:]
    with pytest.raises(ContentError):
        OURS.decrypt(GOOD | {name: base64.b64encode(bytes(raw)).decode()})


@settings(max_examples=100)
@given(st.sampled_from(sorted(GOOD)), st.text(max_size=40), st.integers(0, 500))
def test_text_put_anywhere_into_it_changes_nothing_or_closes_it(name: str, text: str, place: int) -> None:
    content = copy.deepcopy(GOOD)
    at = place % (len(content[name]) + 1)
    content[name] = content[name][:at] + text + content[name][at:]
    try:
        assert OURS.decrypt(content) == MESSAGE
    except ContentError:
        assert text


PEM = self_signed("settings")


@pytest.mark.parametrize("form", ["pem", "escaped", "base64", "pkcs12"])
def test_a_certificate_is_read_in_every_form_that_a_setting_may_have(form: str) -> None:
    plain = read_certificate(PEM)
    key = serialization.load_pem_private_key(PEM.encode(), None)
    shown = x509.load_pem_x509_certificate(PEM.encode())
    blob = pkcs12.serialize_key_and_certificates(b"x", key, shown, None, serialization.NoEncryption())  # type: ignore[arg-type]
    text = {
        "pem": PEM,
        "escaped": PEM.replace("\n", "\\n"),
        "base64": as_setting(PEM),
        "pkcs12": base64.b64encode(blob).decode(),
    }[form]
    assert read_certificate(text).public == plain.public


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "neither PEM nor"),
        ("é", "neither PEM nor base64"),
        (base64.b64encode(b"nothing").decode(), "neither PEM nor PKCS"),
        (PEM[: PEM.index("-----BEGIN PRIVATE")], "certificate and its private key"),
        (PEM[PEM.index("-----BEGIN PRIVATE") :], "certificate and its private key"),
        (self_signed(bits=1024), "2048 to 4096"),
        (PEM[: PEM.index("-----BEGIN PRIVATE")] + self_signed()[1000:], "private key"),
    ],
)
def test_a_certificate_that_is_none_is_refused_without_its_text(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        read_certificate(text)
    assert not text or text not in str(caught.value)


def test_a_key_of_another_certificate_is_refused() -> None:
    other = self_signed()
    mixed = PEM[: PEM.index("-----BEGIN PRIVATE")] + other[other.index("-----BEGIN PRIVATE") :]
    with pytest.raises(ValueError, match="another certificate"):
        read_certificate(mixed)
