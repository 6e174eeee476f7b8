"""What settings are made of: groups of environment variables, and the types of their values."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.graph.notifications import SHORTEST_SECRET_BYTES

ENCRYPTION_KEY_BYTES = 32


def _resolved(value: Any) -> Any:
    """Azure leaves a Key Vault reference as it is when it cannot resolve it; it must never pass for the secret."""
    if isinstance(value, str) and value.startswith("@Microsoft.KeyVault"):
        raise ValueError("the Key Vault reference was not resolved: check the vault's access and the secret's name")
    return value


def _long_enough(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < SHORTEST_SECRET_BYTES:
        raise ValueError(f"it is shorter than {SHORTEST_SECRET_BYTES} bytes")
    return value


def _encryption_key(value: SecretStr) -> SecretStr:
    try:
        size = len(base64.b64decode(value.get_secret_value(), validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("it is not base64") from None
    if size != ENCRYPTION_KEY_BYTES:
        raise ValueError(f"it holds {size} bytes, not {ENCRYPTION_KEY_BYTES}")
    return value


def _encryption_keys(value: SecretStr) -> SecretStr:
    for number, key in enumerate(listed(value), 1):
        try:
            _encryption_key(SecretStr(key))
        except ValueError as error:
            raise ValueError(f"key {number}: {error}") from None
    return value


def listed(value: SecretStr) -> list[str]:
    return [part.strip() for part in value.get_secret_value().split(",")]


def _user_names(value: Any) -> Any:
    """User names out of a text with commas."""
    if not isinstance(value, str):
        return value
    names = [name.strip() for name in value.split(",")]
    if any(name.count("@") != 1 or " " in name for name in names):
        raise ValueError("each name must be a user name like queue@fleet.example")
    if len({name.lower() for name in names}) < len(names):
        raise ValueError("it names an account twice")
    return tuple(names)


def web_address(value: str) -> str:
    if not value.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise ValueError("it must begin with https://")
    return value.rstrip("/")


def _certificate(value: SecretStr) -> SecretStr:
    from shared.graph.rich import read_certificate

    read_certificate(value.get_secret_value())
    return value


Secret = Annotated[SecretStr, BeforeValidator(_resolved)]
Key = Annotated[SecretStr, BeforeValidator(_resolved), AfterValidator(_long_enough)]
EncryptionKey = Annotated[SecretStr, BeforeValidator(_resolved), AfterValidator(_encryption_key)]
Certificate = Annotated[SecretStr, BeforeValidator(_resolved), AfterValidator(_certificate)]
EncryptionKeys = Annotated[SecretStr, BeforeValidator(_resolved), AfterValidator(_encryption_keys)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_user_names)]
Address = Annotated[str, AfterValidator(web_address)]


class Group(BaseSettings):
    """Settings that are needed together; an empty variable counts as one that is not set."""

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="ignore", frozen=True, str_strip_whitespace=True
    )

    def secrets(self) -> list[str]:
        """The secret values, for the logs to hide."""
        values: Mapping[str, Any] = dict(self)
        return [value.get_secret_value() for value in values.values() if isinstance(value, SecretStr)]
