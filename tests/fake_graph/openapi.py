"""Exchanges that the fake Graph has recorded, checked with openapi-core against Microsoft's description."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml
from jsonschema.exceptions import best_match
from openapi_core import Config, OpenAPI
from openapi_core.datatypes import RequestParameters
from openapi_core.exceptions import OpenAPIError
from openapi_schema_validator import OAS30Validator
from werkzeug.datastructures import Headers, ImmutableMultiDict

#: Beside the project, where it is at hand; never part of it.
DESCRIPTION = Path(__file__).resolve().parents[3] / "shared" / "graph" / "openapi.yaml"


class Recorded:
    """A recorded request in openapi-core's form."""

    host_url = "https://graph.microsoft.com"

    def __init__(self, entry: dict[str, Any]) -> None:
        self.path = entry["path"]
        self.method = entry["method"].lower()
        self.content_type = entry["headers"].get("content-type", "application/json")
        body = entry["body"]
        self.body = body.encode() if isinstance(body, str) else body and json.dumps(body).encode()
        query = ImmutableMultiDict(parse_qsl(entry["queryString"]))
        self.parameters = RequestParameters(query=query, header=Headers(entry["headers"]))


class Answered:
    """Its answer."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.status_code = entry["status"]
        self.headers = Headers(entry["answerHeaders"])
        answer = without_nulls(entry["answer"])
        binary = isinstance(answer, str)
        self.content_type = "application/octet-stream" if binary else "application/json"
        self.data = answer.encode() if binary else answer and json.dumps(answer).encode()


def without_nulls(value: Any) -> Any:
    """Graph sends null for empty complex properties; the description can say so of plain ones only."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


@cache
def load_document() -> dict[str, Any]:
    """The description as it stands; FileNotFoundError where it is not at hand."""
    document: dict[str, Any] = yaml.load(DESCRIPTION.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return document


def load_description() -> OpenAPI:
    """For checking requests and answers; FileNotFoundError where it is not at hand."""
    document = dict(load_document())
    # The default would be Graph's own host.
    document["servers"] = [{"url": "/v1.0"}]
    # openapi-core knows no oauth2, and warns; the fake checks tokens itself.
    document.pop("security", None)
    config = Config(spec_validator_cls=None)  # type: ignore[arg-type]
    return OpenAPI.from_dict(document, config=config)


def post_fault(post: dict[str, Any]) -> str | None:
    """What the description says against what was posted to a webhook."""
    schema = {"$ref": "#/components/schemas/microsoft.graph.changeNotificationCollection"}
    check = OAS30Validator(schema | {"components": load_document()["components"]})
    found = best_match(check.iter_errors(post))
    return None if found is None else f"{list(found.absolute_path)}: {found.message}"


#: The description leaves a single folder out; Microsoft's types are checked all the same.
LEFT_OUT = re.compile(r"/users/[^/]+/mailFolders/[^/]+$")


def fault_of(description: OpenAPI, entry: dict[str, Any]) -> str | None:
    """What the description says against this exchange; the root of the chain of causes is the telling one."""
    if LEFT_OUT.search(entry["path"]) and not entry["path"].endswith("/delta"):
        return None
    request = Recorded(entry)
    try:
        description.validate_request(request)
        description.validate_response(request, Answered(entry))
    except OpenAPIError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        details = [problem.message[:200] for problem in getattr(cause, "schema_errors", [])]
        return f"{entry['method']} {entry['path']} {entry['status']}: {cause} {details}"[:600]
    return None
