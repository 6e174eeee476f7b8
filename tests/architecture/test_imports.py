"""Which part may know which, read from the syntax tree: an arrow in the wrong direction fails here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = [
    ROOT / "function_app.py",
    *sorted((ROOT / "functions").rglob("*.py")),
    *sorted((ROOT / "shared").rglob("*.py")),
]

#: What of ours each part may import; the longest prefix that fits a module is its rule.
ALLOWED: dict[str, tuple[str, ...]] = {
    "function_app": ("functions",),
    "functions": (
        "functions",
        "shared.bootstrap",
        "shared.engine",
        "shared.handlers",
        "shared.monitoring",
        "shared.access",
        "shared.admin",
        "shared.settings_errors",
        "shared.tracing",
        "shared.web",
    ),
    "shared.web": ("shared.web",),
    "shared.admin": (
        "shared.admin",
        "shared.access",
        "shared.engine",
        "shared.handlers",
        "shared.monitoring",
        "shared.settings_errors",
    ),
    "shared.bootstrap": ("shared",),
    "shared.testing": ("shared.engine", "shared.handlers"),
    "shared.sign_in": ("shared.bootstrap", "shared.engine.errors", "shared.graph", "shared.settings_errors"),
    "shared.reseal": ("shared.bootstrap", "shared.engine.errors", "shared.settings_errors"),
    "shared.settings": (
        "shared.settings_errors",
        "shared.engine.errors",
        "shared.graph_settings",
        "shared.notification_settings",
        "shared.setting_types",
        "shared.teams_settings",
    ),
    "shared.notification_settings": ("shared.setting_types",),
    "shared.teams_settings": ("shared.setting_types", "shared.handlers.teams_routes"),
    "shared.graph_settings": ("shared.setting_types", "shared.graph.credentials", "shared.graph.certificate"),
    "shared.setting_types": ("shared.graph.notifications", "shared.graph.rich"),
    "shared.settings_errors": ("shared.engine.errors",),
    "shared.logs": ("shared.tracing", "shared.redaction"),
    "shared.redaction": (),
    "shared.tracing": (),
    "shared.telemetry": ("shared.tracing",),
    "shared.access": (),
    "shared.engine": ("shared.engine", "shared.redaction", "shared.tracing"),
    "shared.sealing": (),
    "shared.http_connection": (),
    "shared.http_session": ("shared.http_connection",),
    "shared.graph": ("shared.graph", "shared.http_session", "shared.redaction", "shared.sealing", "shared.tracing"),
    "shared.outgoing": ("shared.outgoing", "shared.graph", "shared.http_connection", "shared.http_session"),
    "shared.handlers": (
        "shared.handlers",
        "shared.engine",
        "shared.graph",
        "shared.outgoing",
        "shared.redaction",
        "shared.tracing",
    ),
    "shared.monitoring": (
        "shared.monitoring",
        "shared.engine",
        "shared.settings_errors",
        "shared.handlers.operator_notices",
        "shared.handlers.services",
    ),
    "shared.postgres": (
        "shared.postgres",
        "shared.access",
        "shared.admin.cursor",
        "shared.admin.job_filter",
        "shared.engine",
        "shared.handlers",
        "shared.graph",
        "shared.sealing",
        "shared.monitoring",
    ),
    "shared.storage": ("shared.storage", "shared.engine", "shared.handlers.services"),
}
#: Libraries that only their adapters know.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "azure.functions": ("function_app", "functions"),
    "azure.storage": ("shared.storage",),
    "psycopg": ("shared.postgres",),
    "psycopg_pool": ("shared.postgres",),
    "msal": ("shared.graph", "shared.storage"),
    "requests": ("shared.graph", "shared.http_session", "shared.outgoing", "shared.storage"),
    "opentelemetry": ("shared.telemetry",),
    "azure.monitor": ("shared.telemetry",),
    "pydantic_settings": ("shared.settings", "shared.setting_types"),
    "cronsim": ("shared.engine.cron",),
    "cryptography": (
        "shared.sealing",
        "shared.graph.certificate",
        "shared.graph.rich",
        "shared.graph.validation_tokens",
    ),
    "jwt": ("shared.graph.access_tokens", "shared.graph.permissions", "shared.graph.validation_tokens"),
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module named by an import, wherever it stands; `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def rule_of(module: str) -> tuple[str, ...]:
    prefix = max((name for name in ALLOWED if is_in(module, name)), key=len, default="")
    return ALLOWED.get(prefix, ())


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    module = module_name(path)
    for imported in imports(ast.parse(path.read_text())):
        if is_in(imported, "shared") or is_in(imported, "functions"):
            assert any(is_in(imported, allowed) for allowed in rule_of(module)), f"{module} imports {imported}"
        assert not any(is_in(imported, other) for other in ("local", "tests", "bench")), f"{module} imports {imported}"


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_a_library_is_known_to_its_adapter_only(path: Path) -> None:
    module = module_name(path)
    for imported in imports(ast.parse(path.read_text())):
        for library, places in ONLY_IN.items():
            if is_in(imported, library):
                assert any(is_in(module, place) for place in places), f"{module} imports {imported}"


def test_what_is_for_tests_is_neither_used_nor_deployed() -> None:
    for path in PRODUCT:
        assert not any(is_in(name, "shared.testing") for name in imports(ast.parse(path.read_text()))), path
    assert "shared/testing.py" in (ROOT / ".funcignore").read_text().split()


def test_only_bootstrap_loads_the_settings() -> None:
    for path in PRODUCT:
        module = module_name(path)
        if module != "shared.settings" and not is_in(module, "shared.bootstrap"):
            assert not any(is_in(name, "shared.settings") for name in imports(ast.parse(path.read_text()))), module


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_nothing_but_the_settings_reads_the_environment(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            pytest.fail(f"{module_name(path)}, line {node.lineno}")


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_no_clock_is_read_without_a_time_zone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        naive = node.func.attr in ("now", "fromtimestamp") and len(node.args) + len(node.keywords) < (
            1 if node.func.attr == "now" else 2
        )
        is_datetime = isinstance(node.func.value, ast.Name) and node.func.value.id in ("datetime", "date")
        if is_datetime and (naive or node.func.attr in ("utcnow", "utcfromtimestamp", "today")):
            pytest.fail(f"{module_name(path)}, line {node.lineno}")


@pytest.mark.parametrize("path", PRODUCT, ids=module_name)
def test_nothing_unpickles_or_evaluates(path: Path) -> None:
    """A message may come from anybody who can write to a queue."""
    tree = ast.parse(path.read_text())
    assert not {name.split(".")[0] for name in imports(tree)} & {"pickle", "marshal", "shelve", "dill", "yaml"}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "__import__"}


def test_every_rule_is_of_a_module_that_exists() -> None:
    modules = {module_name(path) for path in PRODUCT}
    assert set(ALLOWED) <= modules
