"""`meterprint demo`: usage for a local metering API, so that its dashboard is alive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import Progress

from ..blueprint import Blueprint
from ..blueprints import BLUEPRINTS
from ..client import URL_VARIABLE, MeteringClient
from ..demo import CUSTOMERS, Tally, hour, play
from ..errors import ConfigurationError
from ..meter import Meter
from .common import app, columns, err, examples, heading, out, plain
from .target import address

INTERRUPTED = 130  # the exit status of what a SIGINT ended

Seconds = Annotated[float, typer.Option(help="How long it plays.", min=1, max=50)]
Seed = Annotated[int, typer.Option(help="Another number gives other usage; the same gives the same.")]


@app.command(epilog=examples("demo", "demo --seconds 10 --seed 7"))
def demo(seconds: Seconds = 30, seed: Seed = 1) -> None:
    """Play an hour of usage of six customers into the local metering API, in half a minute.

    The usage follows the blueprints, whose meters it creates first. Some batches are sent twice, and some requests
    hold a mistake and are refused: the dashboard shows both.
    """
    url, key = address()
    with MeteringClient(url, key) as client:
        if not client.is_local():
            raise ConfigurationError(
                f"demo plays into a local metering API only, and {url} is none: `meterprint up` starts one, "
                f"and prints what to set {URL_VARIABLE} to"
            )
        meters = {slug: client.ensure_meters(blueprint.meters) for slug, blueprint in BLUEPRINTS.items()}
        tally = Tally()
        try:
            with _progress(tally) as tell:
                play(client, hour(list(BLUEPRINTS.values()), seed), client.now(), seconds, tally, tell=tell)
        except KeyboardInterrupt:
            _show_tally(tally, "Stopped: ")
            raise typer.Exit(INTERRUPTED) from None
        _show_tally(tally)
        for slug, blueprint in BLUEPRINTS.items():
            _show_readings(client, blueprint, meters[slug])
    out.print(f"\nThe dashboard: [bold]{url}/dashboard[/bold]")


@contextmanager
def _progress(tally: Tally) -> Iterator[Callable[[float], None]]:
    """Shows what is done: a bar on a terminal, else a line for each tenth."""
    if err.is_terminal:
        with Progress(console=err, transient=True) as bar:
            task = bar.add_task("an hour of usage", total=1.0)
            yield lambda done: bar.update(task, completed=done)
        return
    shown = 0

    def tell(done: float) -> None:
        nonlocal shown
        if int(done * 10) > shown:
            shown = int(done * 10)
            out.print(f"{shown * 10:3}%  {tally.sent:,} events sent")

    yield tell


def _show_tally(tally: Tally, start: str = "") -> None:
    known = f"{tally.duplicates:,} known already and not stored twice"
    out.print(f"{start}{tally.sent:,} events sent: {tally.stored:,} stored, {known}")
    if tally.refused:
        out.print(f"{len(tally.refused)} requests refused: {', '.join(sorted(set(tally.refused)))}")


def _show_readings(client: MeteringClient, blueprint: Blueprint, meters: list[Meter]) -> None:
    heading(blueprint.title)
    titles = [f"{plain(meter.name)}\n{plain(meter.measurement_unit)}" for meter in meters]
    table = columns("Customer", *titles, right=tuple(titles))
    readings = [client.usage_by_customer(meter.id or "") for meter in meters]
    for customer_id in CUSTOMERS:
        table.add_row(customer_id, *(f"{reading.get(customer_id, 0):,f}" for reading in readings))
    out.print(table)
