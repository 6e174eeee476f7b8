"""How the development host loads an app: what would be an app without functions in Azure is an error here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from local.azurite import Azurite
from local.host import Host
from local.worker import AppError, load_functions

WriteApp = Callable[..., Path]


def test_functions_are_loaded_in_order_with_their_triggers(write_app: WriteApp) -> None:
    functions = load_functions(
        write_app("""
@app.queue_trigger("message", "%QUEUE%", "Storage")
def one(message: func.QueueMessage): pass

@app.route("two", methods=["POST"], auth_level="anonymous")
def two(req: func.HttpRequest): return "x"

@app.timer_trigger("timer", "0 */5 * * * *")
def three(timer: func.TimerRequest): pass
""")
    )
    assert [function.name for function in functions] == ["one", "two", "three"]
    assert functions[0].trigger["queueName"] == "%QUEUE%"
    assert functions[1].trigger["methods"] == ["POST"]
    assert functions[2].trigger["schedule"] == "0 */5 * * * *"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import does_not_exist", "ModuleNotFoundError"),
        ("app = None", "0 FunctionApp objects"),
        ("second = func.FunctionApp()", "2 FunctionApp objects"),
        ("def (", "SyntaxError"),
        (
            """
@app.route("x", auth_level="anonymous")
def one(other: func.HttpRequest, more): return "x"
""",
            "more",
        ),
        (
            """
@app.queue_output("out", "q", "Storage")
@app.route("x", auth_level="anonymous")
def one(req: func.HttpRequest, out: func.Out[str]): return "x"
""",
            "queue",
        ),
        (
            """
@app.function_name("same")
@app.route("x", auth_level="anonymous")
def one(req: func.HttpRequest): return "x"
@app.function_name("same")
@app.route("y", auth_level="anonymous")
def two(req: func.HttpRequest): return "y"
""",
            "same",
        ),
    ],
)
def test_an_app_that_does_not_load_is_an_error(write_app: WriteApp, source: str, message: str) -> None:
    with pytest.raises(AppError, match=message):
        load_functions(write_app(source))


def test_no_app_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"function_app\.py"):
        load_functions(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"Storage": "UseDevelopmentStorage=true"}, "no setting 'QUEUE'"),
        ({"QUEUE": "jobs"}, "Storage is not a storage connection string"),
        ({"QUEUE": "jobs", "Storage": "nonsense"}, "Storage is not a storage connection string"),
    ],
)
def test_a_missing_setting_is_an_error(
    write_app: WriteApp, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    app = write_app("""
@app.queue_trigger("message", "%QUEUE%", "Storage")
def one(message: func.QueueMessage): pass
""")
    with pytest.raises(AppError, match=message):
        Host(app, 0, tmp_path, settings)


@pytest.mark.parametrize(
    "queues",
    [
        {"batchSize": 33},
        {"batchSize": 0},
        {"maxDequeueCount": 0},
        {"messageEncoding": "text"},
        {"maxPollingInterval": "soon"},
        {"batchsize": 16},
    ],
)
def test_host_json_is_checked(write_app: WriteApp, tmp_path: Path, azurite: Azurite, queues: dict[str, object]) -> None:
    with pytest.raises(AppError, match=r"host\.json"):
        Host(write_app("", **queues), 0, tmp_path, {"Storage": azurite.connection_string})
