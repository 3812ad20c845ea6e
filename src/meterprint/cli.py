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
from dataclasses import replace
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
from .errors import ConfigurationError, MeterprintError, ValidationError
from .event import Event, format_timestamp
from .local.app import create_app
from .local.server import DEFAULT_PORT, HOST, Server
from .local.store import MemoryStore, SQLiteStore, Store
from .recorder import Recorder
from .spool import DeadLetter, dead_letter_files, keep_dead_letters

_RESEND_TIMEOUT = 30.0  # seconds
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
dead_letters_app = typer.Typer(help="See the events that a recorder could not deliver, and send them again.")
app.add_typer(dead_letters_app, name="dead-letters", no_args_is_help=True)

Port = Annotated[int, typer.Option(help="The port of the metering API and its dashboard.", min=0, max=65535)]
SpoolFolder = Annotated[Path, typer.Option("--spool", help="The folder that the recorder has as spool=.")]
EventIds = Annotated[list[str] | None, typer.Argument(metavar="[EVENT_ID]...", help="All, if none is named.")]
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


@dead_letters_app.command("list", epilog=_examples("dead-letters list --spool usage"))
def list_dead_letters(spool: SpoolFolder) -> None:
    """List the dead letters of a spool, oldest first."""
    found = [letter for _, letters in dead_letter_files(spool) for letter in letters]
    table = Table("Event", "Customer", "What", "Given up", "Why", box=None, padding=(0, 2, 0, 0))
    for letter in found:
        customer, name = (_plain(letter.event.get(key, "")) for key in ("customer_id", "event_name"))
        why = f"{letter.code}: {letter.reason}"
        table.add_row(_plain(letter.event_id), customer, name, format_timestamp(letter.at)[:19], _plain(why))
    out.print(table if found else f"No dead letters in {spool}.")


@dead_letters_app.command(
    "show", epilog=_examples("dead-letters show 01a20f9f-b0f7-7fff-bfff-fffffffffffd --spool usage")
)
def show_dead_letter(event_id: Annotated[str, typer.Argument(help="The id of the event.")], spool: SpoolFolder) -> None:
    """Show one dead letter whole, as JSON."""
    for _, letters in dead_letter_files(spool):
        for letter in letters:
            if letter.event_id == event_id:
                out.print_json(letter.to_json())
                return
    raise _no_dead_letter(event_id, spool)


def _no_dead_letter(event_id: str, spool: Path) -> ConfigurationError:
    return ConfigurationError(f"no dead letter {event_id} in {spool}: `meterprint dead-letters list` shows them")


@dead_letters_app.command(
    epilog=_examples("dead-letters resend --spool usage", "dead-letters resend --restamp --spool usage")
)
def resend(
    spool: SpoolFolder,
    ids: EventIds = None,
    restamp: Annotated[
        bool, typer.Option("--restamp", help="Send events that are over an hour old with the current time.")
    ] = False,
) -> None:
    """Send dead letters to METERING_API_URL again; those that it takes are removed.

    Do it after what they were refused for is mended. The ids stay the same: none is billed twice.
    """
    files = dead_letter_files(spool)
    chosen = [x for _, letters in files for x in letters if not ids or x.event_id in ids]
    if missing := set(ids or ()) - {letter.event_id for letter in chosen}:
        raise _no_dead_letter(", ".join(sorted(missing)), spool)
    refused: dict[str, DeadLetter] = {}
    problems: list[MeterprintError] = []
    with Recorder.from_env(
        strict=False,
        late="restamp" if restamp else "dead_letter",
        on_dead=lambda letter: refused.update({letter.event_id: letter}),
        on_problem=problems.append,
        shutdown_timeout=0,
    ) as recorder:
        with err.status(f"sending {len(chosen)} events ..."):
            for letter in chosen:
                _record_again(recorder, letter, refused)
            is_done = recorder.flush(_RESEND_TIMEOUT)
        if not is_done:
            raise MeterprintError(
                f"no answer within {_RESEND_TIMEOUT:g} s: all dead letters are still there, try again"
            )
    for file, letters in files:
        kept = [refused.get(x.event_id, x) for x in letters if x not in chosen or x.event_id in refused]
        if kept != letters:
            keep_dead_letters(file, kept)
    out.print(f"{len(chosen) - len(refused)} delivered, {len(refused)} refused")
    for letter in refused.values():
        out.print(f"  {_plain(letter.event_id)}: {_plain(letter.reason)}")
    if refused:
        raise MeterprintError("some are dead letters still: mend what the reasons name")


def _record_again(recorder: Recorder, letter: DeadLetter, refused: dict[str, DeadLetter]) -> None:
    try:
        recorder.record(Event.from_wire(letter.event))
    except ValidationError as error:
        refused[letter.event_id] = replace(letter, code=error.code, reason=str(error))


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
