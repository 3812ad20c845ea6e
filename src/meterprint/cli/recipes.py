"""`meterprint list`, `run` and `snippets`: the recipes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from .. import snippets
from ..client import KEY_VARIABLE, URL_VARIABLE, MeteringClient
from ..errors import ConfigurationError, MeterprintError
from ..event import Event
from ..local.app import create_app
from ..local.server import DEFAULT_PORT, HOST, Server
from ..local.store import MemoryStore
from .common import LOCAL_KEY, app, columns, err, examples, heading, is_local, out, plain

snippets_app = typer.Typer(help="Check every snippet in every language, or write anew what they print and leave.")
app.add_typer(snippets_app, name="snippets", no_args_is_help=True)


@app.command("list", epilog=examples("list"))
def list_recipes() -> None:
    """List the blueprints with their recipes, and the languages of each."""
    table = columns("Recipe", "What it shows", "Languages")
    for recipe in snippets.find_recipes(snippets.find_root()):
        table.add_row(recipe.name, snippets.summary(recipe), ", ".join(p.lang for p in recipe.programs))
    out.print(table)


@app.command(epilog=examples("run api_gateway/first_event", "run api_gateway/first_event --lang go"))
def run(
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="As `meterprint list` names it.")],
    lang: Annotated[str, typer.Option(help="The language: python, ts, go, curl, ...", show_default="the first")] = "",
) -> None:
    """Run a snippet; show what it prints, the events that it sends, and what each meter then reads.

    It runs against METERING_API_URL if that is set, else against the local metering API if one is running, else
    against one that it starts. Models of providers are asked with your key (OPENAI_API_KEY, ...); for want of one,
    stand-ins answer.
    """
    root = snippets.find_root()
    recipe = snippets.find_recipe(root, name)
    program = recipe.program(lang) if lang else recipe.programs[0]
    snippets.install_tools(root, snippets.missing_tools([program]), err.print)
    with _api() as (url, key), MeteringClient(url, key) as client:
        environment = snippets.program_environment(url, key, os.environ)
        if variables := snippets.stood_in(program, environment):
            err.print(f"{' and '.join(variables)} not set: a stand-in at {url} answers, without an account or a bill.")
        with err.status(f"running {program.path.name} ..."):
            outcome = snippets.run(program, recipe, client, environment)
    heading(f"{program.path.relative_to(root)} prints")
    sys.stdout.write(outcome.output)
    sys.stdout.flush()
    if outcome.errors:
        sys.stderr.write(outcome.errors)
    _show_events(outcome.events)
    heading(f"The meters read, in the ledger of the key {_masked(key)} at {url}")
    units = {meter.name: meter.measurement_unit for meter in recipe.blueprint.meters}
    table = columns("", "")
    table.show_header = False
    for meter, reading in outcome.readings.items():
        table.add_row(meter, f"{reading} {units[meter]}")
    out.print(table)
    if outcome.status:
        raise MeterprintError(f"{program.path.name} ended with exit status {outcome.status}")


@snippets_app.command(epilog=examples("snippets check api_gateway/first_event"))
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE]...", help="All, if none is named.")] = None,
) -> None:
    """Run each program, and compare what it prints and leaves with expected.txt and ledger.json."""
    failed = sum(1 for _, found in _runs(names or []) if found)
    if failed:
        raise MeterprintError(f"{failed} failed; if the new output is right: `meterprint snippets update`")


@snippets_app.command(epilog=examples("snippets update api_gateway/first_event"))
def update(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE]...", help="All, if none is named.")] = None,
) -> None:
    """Write expected.txt and ledger.json anew from the first program of each, and check the others against them."""
    for recipe in _recipes(names or []):
        reference = recipe.programs[0]
        with _fresh_api() as (client, environment):
            outcome = snippets.run(reference, recipe, client, environment)
        if outcome.status:
            raise MeterprintError(f"{reference.path.name} failed:\n{outcome.errors}")
        recipe.expected.write_text(outcome.output, encoding="utf-8")
        recipe.ledger.write_text(snippets.ledger_of(outcome, recipe.blueprint), encoding="utf-8")
    check(names)


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
                out.print(plain(fault))
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
    if not url and is_local(default := f"http://{HOST}:{DEFAULT_PORT}"):
        url = default
    if url and not is_local(url):
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


def _show_events(events: tuple[Event, ...]) -> None:
    heading(f"It sent {len(events)} event{'' if len(events) == 1 else 's'}")
    for event in events:
        out.print_json(json.dumps(event.to_wire()))


def _masked(key: str) -> str:
    return key if key == LOCAL_KEY else "***"
