"""Makes JSON Schemas of Microsoft Graph's own TypeScript types, so that none of them has to be committed.

    python -m local.fake_graph.schemas --out .local/graph-schemas

Installs three pinned npm packages once, then turns the few types that the fake Graph needs, and all that they refer
to, into one file of definitions. About 5 s the first time; nothing when it has been done.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from local.azurite import node, run_npm
from local.fake_graph.checks import FILE_NAME

PACKAGES = {
    "@microsoft/microsoft-graph-types": "2.43.1",
    "ts-json-schema-generator": "2.10.0",
    "typescript": "6.0.3",
}
#: Raise when the transformation below changes.
REVISION = 3
HOME = Path(__file__).resolve().parent.parent.parent / ".local"
INSTALLED = HOME / "npm-graph"
#: The types to start from; a subtype that only inheritance leads to must be named as well.
TYPES = (
    "Message", "FileAttachment", "ItemAttachment", "ReferenceAttachment", "MailFolder", "Subscription", "Chat",
    "ChatMessage", "ChatMessageHostedContent", "TeamworkUserIdentity", "TeamworkApplicationIdentity",
    "ChangeNotificationCollection", "TeamworkActivityTopic", "KeyValuePair", "TeamworkNotificationRecipient",
    "AadUserNotificationRecipient", "ChatMembersNotificationRecipient", "TeamMembersNotificationRecipient",
    "ChannelMembersNotificationRecipient",
    "AttachmentItem", "UploadSession",
    "Event", "Contact", "ContactFolder", "Drive", "DriveItem",
)  # fmt: skip
#: Types of which only subtypes occur; these say in @odata.type which one they are.
ABSTRACT = {"Attachment", "TeamworkNotificationRecipient"}
#: What the types do not know and the REST reference does.
EXTRA = {
    "ChatMessageHostedContent": {"@microsoft.graph.temporaryId": {"type": "string"}},
    "DriveItem": {"@microsoft.graph.downloadUrl": {"type": "string"}},
    # Its @odata.type is that of the resource.
    "ResourceData": {"id": {"type": "string"}, "@odata.type": {"type": "string"}},
}
_EXTENDS = re.compile(r"^export interface (\w+) extends (\w+) ", re.MULTILINE)
_REF = "#/definitions/"

Json = dict[str, Any]


def make(out: Path) -> bool:
    """Make the schemas in the folder `out`; False when they were there already, of these versions."""
    made_from = {"packages": PACKAGES, "types": list(TYPES), "revision": REVISION}
    file = out / FILE_NAME
    out.mkdir(parents=True, exist_ok=True)
    if _made_from(file) == made_from:
        return False
    install(INSTALLED)
    with INSTALLED.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _made_from(file) == made_from:
            return False
        types, declarations = generate(INSTALLED)
        schemas = {"made_from": made_from, "definitions": transform(types, declarations)}
        new = file.with_suffix(".new")
        new.write_text(json.dumps(schemas, separators=(",", ":")))
        new.replace(file)
    return True


def install(folder: Path) -> None:
    """Install the pinned packages; the folder gets its name when they are whole. Two at once do it once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(_installed(folder, name) == version for name, version in PACKAGES.items()):
            return
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        packages = [f"{name}@{version}" for name, version in PACKAGES.items()]
        options = ["--prefix", str(new), "--no-audit", "--no-fund", "--ignore-scripts"]
        run_npm(["install", *options, *packages], HOME / "logs" / "npm-graph.log")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def generate(folder: Path) -> tuple[Json, str]:
    """The generator's definitions of all types from TYPES on, and the text of Microsoft's declarations."""
    # One entry type, because asked for "*" the generator leaves out types that nothing refers to.
    members = "".join(f"  {name}: graph.{name};\n" for name in TYPES)
    text = f'import * as graph from "@microsoft/microsoft-graph-types";\nexport interface Roots {{\n{members}}}\n'
    entry = folder / "roots.ts"
    entry.write_text(text)
    modules = folder / "node_modules"
    generator = modules / "ts-json-schema-generator" / "bin" / "ts-json-schema-generator.js"
    done = subprocess.run(
        [str(node()), str(generator), "--path", str(entry), "--type", "Roots", "--no-type-check"],
        capture_output=True, text=True, cwd=folder,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"ts-json-schema-generator failed (exit code {done.returncode}):\n{done.stderr[-2000:]}")
    declarations = modules / "@microsoft" / "microsoft-graph-types" / "microsoft-graph.d.ts"
    definitions: Json = json.loads(done.stdout)["definitions"]
    return definitions, declarations.read_text()


def transform(types: Json, declarations: str) -> Json:
    """Definitions for checking JSON on the wire, from those of the TypeScript types.

    NullableOption<T> becomes T or null; a place for a base type takes its subtypes; enumerations ignore case, as
    Graph does; OData's annotations are allowed, and @odata.type must name the type. Unknown properties stay refused.
    """
    named = {name: schema for name, schema in types.items() if "<" not in name and name != "Roots"}
    result = {name: _clean(schema, types) for name, schema in named.items()}
    for name, schema in result.items():
        if schema.get("type") == "object":
            _annotate(name, schema)
    for base, subtypes in _subtypes(declarations, set(result)).items():
        exact = f"{base}.exact"
        result[exact] = result[base]
        if base in ABSTRACT:
            for subtype in subtypes:
                result[subtype]["required"] = ["@odata.type"]
        choices = subtypes if base in ABSTRACT else [exact, *subtypes]
        result[base] = {"anyOf": [{"$ref": _REF + choice} for choice in choices]}
    return result


def _clean(schema: Any, types: Json) -> Any:
    if isinstance(schema, list):
        return [_clean(part, types) for part in schema]
    if not isinstance(schema, dict):
        return schema
    reference = unquote(schema.get("$ref", "")).removeprefix(_REF)
    if "<" in reference:
        return _clean(types[reference], types)
    if reference:
        return {"$ref": _REF + reference}
    if schema.get("type") == "string" and "enum" in schema:
        choices = "|".join(re.escape(choice) for choice in schema["enum"])
        return {"type": "string", "pattern": f"^(?i:{choices})$"}
    # `properties` holds names, among them "description", and no keywords.
    return {
        key: {name: _clean(part, types) for name, part in value.items()}
        if key == "properties"
        else _clean(value, types)
        for key, value in schema.items()
        if key != "description" or isinstance(value, dict)
    }


def _annotate(name: str, schema: Json) -> None:
    properties = schema.setdefault("properties", {})
    properties["@odata.type"] = {"const": f"#microsoft.graph.{name[0].lower()}{name[1:]}"}
    properties |= EXTRA.get(name, {})
    schema["patternProperties"] = {r"^\w*@odata\.(id|etag|context|count|nextLink|type|mediaContentType)$": {}}


def _subtypes(declarations: str, known: set[str]) -> dict[str, list[str]]:
    """For each known type its known subtypes, near and far."""
    parents = {name: base for name, base in _EXTENDS.findall(declarations) if name in known}
    found: dict[str, list[str]] = {}
    for name in sorted(parents):
        base: str | None = parents[name]
        while base is not None:
            if base in known:
                found.setdefault(base, []).append(name)
            base = parents.get(base)
    return found


def _made_from(file: Path) -> Any:
    try:
        return json.loads(file.read_text())["made_from"]
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _installed(folder: Path, package: str) -> str | None:
    try:
        found = json.loads((folder / "node_modules" / package / "package.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return str(found.get("version"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.fake_graph.schemas", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HOME / "graph-schemas", help="folder for the schemas")
    out = parser.parse_args().out
    print(f"{'Made' if make(out) else 'Found'} {out / FILE_NAME}.")


if __name__ == "__main__":
    main()
