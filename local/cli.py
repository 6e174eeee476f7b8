"""The commands of ./dev. Each imports what it needs when it runs, so that `./dev help` comes at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from local.state import State

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".local"
CHECKED = ("function_app.py", "functions", "shared", "local", "tests", "bench")

#: `./dev help` prints the same file without Python.
HELP = (ROOT / "local" / "help.txt").read_text("utf-8")


class Scenario(StrEnum):
    """What ./dev demo plays."""

    ENGINE = "engine"
    GRAPH = "graph"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
#: For commands that hand their arguments on as they are, `--help` too.
#: Options of the tests that say which PostgreSQL they work on: docs/reference/testing.md.
WAYS_TO_POSTGRES = ("--through", "--postgres")
PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def main() -> int:
    """Run the command of sys.argv; its exit code."""
    if sys.argv[1:2] in ([], ["help"], ["-h"], ["--help"]):
        print(HELP, end="")
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    from local.process import ProcessError

    try:
        app(prog_name="./dev")
    except ProcessError as error:
        _fail(str(error))
    return 0


@app.command()
def setup() -> None:
    """Install what is missing beside the Python packages: Azurite, the dashboard's npm packages, Graph's schemas."""
    install_tools()
    print("Everything is installed.")


@app.command()
def demo(
    scenario: Annotated[Scenario, typer.Argument(help="engine: the queue; graph: Microsoft 365.")] = Scenario.ENGINE,
    json: Annotated[Path | None, typer.Option(help="Write the results into this file too.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running afterwards.")] = False,
) -> None:
    """Start everything, play a scenario and compare what happened with what should."""
    install_tools()
    from local import demo as scenarios

    called_from = Path(os.environ.get("DEV_CALLED_FROM", Path.cwd()))
    raise typer.Exit(scenarios.run(scenario.value, called_from / json if json else None, keep))


@app.command(context_settings=PASS_ON)
def test(context: typer.Context) -> None:
    """Run the tests; arguments go to pytest.

    Without arguments, or with none but another way to PostgreSQL, all of them: one more at a time than there are
    processors, as most wait for a server, but those that measure the running system one at a time.
    """
    install_tools()
    pytest = [sys.executable, "-m", "pytest"]
    if not _is_only_a_way(context.args):
        _replace([*pytest, *context.args])
    apart = ("tests/acceptance", "tests/dashboard", "tests/docs")
    together = ("tests", "-n", str(1 + (os.cpu_count() or 1)), *(f"--ignore={folder}" for folder in apart))
    codes = [
        subprocess.run([*pytest, *arguments, *context.args], cwd=ROOT).returncode for arguments in (together, apart)
    ]
    raise typer.Exit(max(codes, key=abs))


def _is_only_a_way(arguments: Sequence[str]) -> bool:
    """Whether they are none but `--through pgbouncer` and `--postgres FOLDER`."""
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if name not in WAYS_TO_POSTGRES or not (value or next(rest, "")):
            return False
    return True


@app.command()
def check() -> None:
    """Lint, formatting and types, all three even when one fails."""
    present = [name for name in CHECKED if (ROOT / name).is_file() or any((ROOT / name).rglob("*.py"))]
    steps = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy", "--strict", *present])
    codes = []
    for step in steps:
        print("$", *step, flush=True)
        codes.append(subprocess.run([sys.executable, "-m", *step], cwd=ROOT).returncode)
    raise typer.Exit(max(codes, key=abs))


@app.command()
def up() -> None:
    """Start everything and stay until Ctrl-C."""
    install_tools()
    from local.process import ProcessError, wait_until
    from local.stack import PREFERRED_PORTS, Stack, remove_stale_folders
    from local.state import State

    remove_stale_folders()
    ports = PREFERRED_PORTS | State.load(HOME).ports
    print("Starting PostgreSQL, Azurite, the fake Graph and the function host …", flush=True)
    with Stack(HOME, ports=ports, say=print) as stack:
        print(_addresses(stack.environment, stack.graph.base_url), flush=True)
        while not wait_until(lambda: bool(stack.ended()), 3600):
            pass
        names = ", ".join(f"{process.name} (log: {process.log})" for process in stack.ended())
        ended = "\n".join(process.last_lines() for process in stack.ended())
    raise ProcessError(f"ended on its own: {names}\n{ended}")


@app.command()
def down() -> None:
    """Stop what was started from here, by any shell."""
    ended = stop_all()
    print(f"Stopped {', '.join(ended)}." if ended else "Nothing is running.")


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Stop everything and remove the local data; what is installed stays."""
    data = [HOME / name for name in DATA if (HOME / name).exists()]
    if not data:
        print("There is no local data.")
        return
    if not yes:
        typer.confirm(f"Stop everything and remove {', '.join(path.name for path in data)} in {HOME}?", abort=True)
    stop_all()
    for path in data:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    print("The local data is removed.")


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(help="One of them, e.g. host.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Stay and show what comes.")] = False,
) -> None:
    """Show the end of the logs of what runs, or of the last `up`."""
    folder = _running_folder() / "logs"
    files = sorted(folder.glob(f"{name or '*'}.log"))
    if not files:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.log")))
        _fail(f"there is no log {name or ''} in {folder}; there are: {known or 'none'}")
    _replace(["tail", "-n", "40", *(["-F"] if follow else []), *map(str, files)])


@app.command()
def schema() -> None:
    """Write the layout that all migrations together make into shared/postgres/schema.sql."""
    from local import schema as layout

    print(f"Written: {layout.write().relative_to(ROOT)}")


@app.command(context_settings=PASS_ON)
def psql(context: typer.Context) -> None:
    """Open a database shell; arguments go to psql."""
    from local.postgres import binaries

    _replace([str(binaries() / "psql"), _settings()["DATABASE_URL"], *context.args])


@app.command(context_settings=PASS_ON)
def python(context: typer.Context) -> None:
    """Run Python in the project's environment, with the settings of what runs."""
    _replace([sys.executable, *context.args], _running().environment | dict(os.environ))


@app.command(context_settings=PASS_ON)
def q(context: typer.Context) -> None:
    """Look at jobs and operate queues, of what runs here or of an app in Azure."""
    from local.q.app import main as run

    os.chdir(os.environ.get("DEV_CALLED_FROM", ROOT))
    raise typer.Exit(run(context.args or ["--help"], running_settings, "./dev q"))


@app.command()
def env() -> None:
    """Print the settings of what runs, secrets too, as a shell reads them."""
    import shlex

    for name, value in _settings().items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def migrate() -> None:
    """Bring the database up to date."""
    from shared.postgres.migrate import MigrationError
    from shared.postgres.migrate import migrate as apply

    try:
        applied = apply(os.environ.get("DATABASE_URL") or _settings()["DATABASE_URL"])
    except MigrationError as error:
        _fail(str(error))
    print(f"Applied: {', '.join(applied)}." if applied else "The database is up to date.")


@app.command()
def reseal() -> None:
    """Seal payloads and the sign-in with the current key."""
    if "DATABASE_URL" not in os.environ:
        os.environ.update(_settings())
    from shared.reseal import main as run

    raise typer.Exit(run())


@app.command("sign-in")
def sign_in(
    account: Annotated[str | None, typer.Option(help="Which service account; the first one by default.")] = None,
    browser: Annotated[bool, typer.Option("--browser", help="In a browser here, in place of a code.")] = False,
) -> None:
    """Sign a service account in, in whose name Teams messages are sent."""
    if "DATABASE_URL" not in os.environ:
        os.environ.update(_settings())
    from shared.sign_in import main as run

    raise typer.Exit(run([*(["--account", account] if account else []), *(["--browser"] if browser else [])]))


# What the commands share

#: What `reset` removes of .local; the tools stay.
DATA = ("postgres", "postgres.new", "queues", "graph", "host", "run", "logs", "tmp", "settings.json")


def install_tools() -> None:
    """Install Azurite and the dashboard's packages and make the JSON Schemas, where they are missing or old."""
    from local import azurite, web_packages

    if not web_packages.is_installed():
        web_packages.install(HOME / "logs" / "npm-web.log")
    if not azurite.is_installed():
        print("Installing Azurite (about 15 s; the npm packages are about 250 MB) …", flush=True)
        azurite.install(HOME / "logs" / "npm-azurite.log")
    from local.fake_graph import checks, schemas

    if not (HOME / "graph-schemas" / checks.FILE_NAME).exists():
        print("Making JSON Schemas of Microsoft Graph's types (about 10 s) …", flush=True)
    schemas.make(HOME / "graph-schemas")


def stop_all() -> list[str]:
    """End `up` and every demo, through the process that runs it if there is one; what was ended."""
    from local.stack import remove_stale_folders
    from local.state import State

    ended: list[str] = []
    for folder in (HOME, *(HOME / "tmp").glob("*")):
        ended += State.load(folder).end_with_owner()
    remove_stale_folders()
    return ended


def _running() -> State:
    """The state of `up`, or else of a demo that was left running; empty when nothing runs."""
    from local.state import State

    state = State.load(_running_folder())
    return state if state.is_running() else State()


def _running_folder() -> Path:
    """The data folder of `up`, or of a demo that was left running."""
    from local.state import State

    return next((f for f in (HOME, *(HOME / "tmp").glob("*")) if State.load(f).is_running()), HOME)


def running_settings() -> dict[str, str]:
    """The settings of what runs, secrets too; empty when nothing does."""
    return _running().environment


def _settings() -> dict[str, str]:
    environment = _running().environment
    if not environment:
        _fail("nothing is running here; start it with ./dev up in another shell")
    return environment


def _addresses(environment: dict[str, str], graph: str) -> str:
    webhooks = environment["WEBHOOK_BASE_URL"]
    return f"""
  dashboard    {webhooks}/queue/dashboard
  admin key    {environment["ADMIN_KEY"]}
  functions    {webhooks}   (try: curl {webhooks}/queue/health)
  PostgreSQL   {environment["DATABASE_URL"]}
  queues       {environment["QueueStorage"].partition("QueueEndpoint=")[2].partition(";")[0]}
  fake Graph   {graph}
  logs         ./dev logs -f    settings and keys: ./dev env

Ctrl-C stops everything; the data stays."""


def _replace(command: list[str], environment: dict[str, str] | None = None) -> NoReturn:
    """Become another program: its exit code and its signals are then its own."""
    sys.stdout.flush()
    os.chdir(os.environ.get("DEV_CALLED_FROM", ROOT) if "pytest" not in command else ROOT)
    os.execvpe(command[0], command, environment or dict(os.environ))


def _leave(number: int, _frame: object) -> NoReturn:
    """A signal ends the command by an exception, so that whatever it has started is stopped."""
    print("\nStopping …", file=sys.stderr, flush=True)
    raise SystemExit(128 + number)


def _fail(message: str) -> NoReturn:
    print(f"./dev: {message}", file=sys.stderr)
    raise SystemExit(1)
