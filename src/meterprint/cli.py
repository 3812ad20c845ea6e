"""The command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
    from rich.console import Console
    from rich.table import Table
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles
except ImportError as error:
    raise SystemExit(
        f"the command line needs the extra `local` ({error}): pip install '.[local]' in a checkout"
    ) from None

from . import snippets
from .blueprints import BLUEPRINTS
from .client import KEY_VARIABLE, URL_VARIABLE, MeteringClient
from .errors import ConfigurationError, MeterprintError
from .event import Event
from .local.app import create_app
from .local.server import DEFAULT_PORT, HOST, Server
from .local.store import MemoryStore, SQLiteStore, Store

LOCAL_KEY = "local"
SITE_PORT = 8000
DATABASE = Path(".meterprint", "ledger.db")

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def _examples(*commands: str) -> str:
    return "\n\n".join(("Examples:", *(f"  meterprint {command}" for command in commands)))


app = typer.Typer(
    help="Executable blueprints for usage-based billing, and a metering API that runs on your own machine.",
    epilog=_examples("up", "run api_gateway/first_event --lang go", "snippets check"),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
snippets_app = typer.Typer(help="Check every snippet in every language, or write anew what they print and leave.")
app.add_typer(snippets_app, name="snippets", no_args_is_help=True)

Port = Annotated[int, typer.Option(help="The port of the metering API and its dashboard.", min=0, max=65535)]
Database = Annotated[Path, typer.Option("--db", help="The SQLite file that keeps events and meters.")]


@app.command(epilog=_examples("up --port 4242 --site-port 8080"))
def up(
    port: Port = DEFAULT_PORT,
    site_port: Annotated[int, typer.Option(help="The port of the site.", min=0, max=65535)] = SITE_PORT,
    db: Database = DATABASE,
) -> None:
    """Build the site, and serve it with the local metering API until Ctrl-C."""
    root = snippets.find_root()
    with (
        _store(db) as store,
        Server(create_app(store), port) as api,
        Server(site_app(root / "site"), site_port, option="--site-port") as site,
    ):
        _build_site(root, site.url)
        _create_meters(api.url)
        out.print(f"\nThe guides          [bold]{site.url}/[/bold]")
        _show_api(api.url, db)
        _wait()


@app.command(epilog=_examples("serve", "serve --memory --port 4242", "serve --db usage.db"))
def serve(
    port: Port = DEFAULT_PORT,
    db: Database = DATABASE,
    memory: Annotated[bool, typer.Option("--memory", help="Keep nothing when it ends.")] = False,
) -> None:
    """Serve the local metering API and its dashboard alone, until Ctrl-C."""
    with _store(None if memory else db) as store, Server(create_app(store), port) as api:
        _show_api(api.url, None if memory else db)
        _wait()


@app.command("list", epilog=_examples("list"))
def list_recipes() -> None:
    """List the blueprints with their recipes, and the languages of each."""
    table = Table("Recipe", "What it shows", "Languages", box=None, padding=(0, 2, 0, 0))
    for recipe in snippets.find_recipes(snippets.find_root()):
        table.add_row(recipe.name, snippets.summary(recipe), ", ".join(p.lang for p in recipe.programs))
    out.print(table)


@app.command(epilog=_examples("run api_gateway/first_event", "run api_gateway/first_event --lang go"))
def run(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="As `meterprint list` names it.")],
    lang: Annotated[str, typer.Option(help="The language: python, ts, go, curl, ...")] = "python",
) -> None:
    """Run a snippet; show what it prints, the events that it sends, and what each meter then reads.

    It runs against METERING_API_URL if that is set, else against the local metering API if one is running, else
    against one that it starts.
    """
    root = snippets.find_root()
    recipe = snippets.find_recipe(root, name)
    program = recipe.program(lang)
    snippets.install_tools(root, snippets.missing_tools([program]), err.print)
    with _api() as (url, key), MeteringClient(url, key) as client, err.status(f"running {program.path.name} ..."):
        outcome = snippets.run(program, recipe, client, snippets.program_environment(url, key))
    _heading(f"{program.path.relative_to(root)} prints")
    sys.stdout.write(outcome.output)
    sys.stdout.flush()
    if outcome.errors:
        sys.stderr.write(outcome.errors)
    _show_events(outcome.events)
    _heading(f"The meters read, in the ledger of the key {_masked(key)} at {url}")
    units = {meter.name: meter.measurement_unit for meter in recipe.blueprint.meters}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for meter, reading in outcome.readings.items():
        table.add_row(meter, f"{reading} {units[meter]}")
    out.print(table)
    if outcome.status:
        raise MeterprintError(f"{program.path.name} ended with exit status {outcome.status}")


@snippets_app.command(epilog=_examples("snippets check api_gateway/first_event"))
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE]...", help="All, if none is named.")] = None,
) -> None:
    """Run each program, and compare what it prints and leaves with expected.txt and ledger.json."""
    failed = sum(1 for _, found in _runs(names or []) if found)
    if failed:
        raise MeterprintError(f"{failed} failed; if the new output is right: `meterprint snippets update`")


@snippets_app.command(epilog=_examples("snippets update api_gateway/first_event"))
def update(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE]...", help="All, if none is named.")] = None,
) -> None:
    """Write expected.txt and ledger.json anew from the Python programs, and check the others against them."""
    for recipe in _recipes(names or []):
        reference = recipe.programs[0]
        with _fresh_api() as (client, environment):
            outcome = snippets.run(reference, recipe, client, environment)
        if outcome.status:
            raise MeterprintError(f"{reference.path.name} failed:\n{outcome.errors}")
        recipe.expected.write_text(outcome.output, encoding="utf-8")
        recipe.ledger.write_text(snippets.ledger_of(outcome, recipe.blueprint), encoding="utf-8")
    check(names)


def main() -> None:
    """Run the command line; the console script `meterprint`."""
    try:
        app(prog_name="meterprint")
    except MeterprintError as error:
        err.print(f"[bold red]error:[/bold red] {_plain(error)}")
        raise SystemExit(1) from None


def _recipes(names: list[str]) -> list[snippets.Recipe]:
    root = snippets.find_root()
    recipes = [snippets.find_recipe(root, name) for name in names] or snippets.find_recipes(root)
    programs = [program for recipe in recipes for program in recipe.programs]
    snippets.install_tools(root, snippets.missing_tools(programs), err.print)
    return recipes


def _runs(names: list[str]) -> Iterator[tuple[snippets.Program, list[str]]]:
    for recipe in _recipes(names):
        for program in recipe.programs:
            start = time.perf_counter()
            with _fresh_api() as (client, environment):
                found = snippets.faults(recipe, program, snippets.run(program, recipe, client, environment))
            mark = "[red]failed[/red]" if found else "[green]ok[/green]    "
            out.print(f"{mark} {recipe.name} {program.lang} ({time.perf_counter() - start:.2f} s)")
            for fault in found:
                out.print(_plain(fault))
            yield program, found


@contextmanager
def _fresh_api() -> Iterator[tuple[MeteringClient, dict[str, str]]]:
    """A metering API for one run, with nothing in it."""
    with Server(create_app(MemoryStore())) as api, MeteringClient(api.url, LOCAL_KEY) as client:
        yield client, snippets.program_environment(api.url, LOCAL_KEY)


@contextmanager
def _api() -> Iterator[tuple[str, str]]:
    """The URL and the key of the API that a snippet runs against."""
    url, key = os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE) or LOCAL_KEY
    if not url and _is_local(default := f"http://{HOST}:{DEFAULT_PORT}"):
        url = default
    if url and not _is_local(url):
        raise ConfigurationError(
            f"no local metering API at {URL_VARIABLE}={url}: start one with `meterprint up`, or unset {URL_VARIABLE} "
            "to have one started for this run"
        )
    if url:
        yield url, key
        return
    with Server(create_app(MemoryStore())) as api:
        err.print("No metering API is running: started one for this run. `meterprint up` starts one that stays.")
        yield api.url, key


def _is_local(url: str) -> bool:
    with MeteringClient(url, LOCAL_KEY, retries=0, timeout=2) as client:
        return client.is_local()


@contextmanager
def _store(db: Path | None) -> Iterator[Store]:
    store = SQLiteStore(db) if db else MemoryStore()
    try:
        yield store
    finally:
        store.close()


def site_app(folder: Path) -> Starlette:
    """The built site as an application."""
    return Starlette(routes=[Mount("/", StaticFiles(directory=folder, html=True, check_dir=False))])


def _build_site(root: Path, url: str) -> None:
    words = [sys.executable, str(root / "scripts" / "build_site.py")]
    done = subprocess.run(words, cwd=root, env={**os.environ, "SITE_URL": f"{url}/"}, check=False)
    if done.returncode:
        raise MeterprintError("the site was not built: the messages above say why")


def _create_meters(url: str) -> None:
    with MeteringClient(url, LOCAL_KEY) as client:
        for blueprint in BLUEPRINTS.values():
            client.ensure_meters(blueprint.meters)


def _show_api(url: str, db: Path | None) -> None:
    out.print(f"The metering API    [bold]{url}[/bold]   dashboard: [bold]{url}/dashboard[/bold]")
    out.print(f"It keeps its data   {f'in {db}' if db else 'in memory'}\n")
    out.print("To send it events from another terminal:\n")
    out.print(f"  export {URL_VARIABLE}={url}")
    out.print(f"  export {KEY_VARIABLE}={LOCAL_KEY}\n")
    out.print("Ctrl-C stops it. For development only: it is one process on one machine.")


def _wait() -> None:
    """Wait for Ctrl-C, or for the SIGTERM of a supervisor, which ends it the same way."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        out.print("\nStopped.")


def _show_events(events: tuple[Event, ...]) -> None:
    _heading(f"It sent {len(events)} event{'' if len(events) == 1 else 's'}")
    for event in events:
        out.print_json(json.dumps(event.to_wire()))


def _heading(text: str) -> None:
    out.print(f"\n[bold]{_plain(text)}[/bold]")


def _masked(key: str) -> str:
    return key if key == LOCAL_KEY else "***"


def _plain(value: Any) -> str:
    return str(value).replace("[", r"\[")


if __name__ == "__main__":
    main()
