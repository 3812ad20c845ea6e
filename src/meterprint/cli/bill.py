"""`meterprint apply` and `verify`: a blueprint's meters, and whether they bill what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.table import Table

from ..apply import Standing, create, differences, standings
from ..client import MeteringClient
from ..errors import ConfigurationError, MeterprintError
from ..event import Event
from ..pricing import InvoiceLine, money
from ..verify import LONGEST_PAUSE, WAIT, Pace, Verdict, is_live, may_bill, total_of
from ..verify import verify as verified
from .common import app, columns, err, examples, heading, is_local, out, plain
from .target import BlueprintName, address, find_blueprint

_OK, _DIFFERS = "[green]ok[/green]", "[bold red]differs[/bold red]"


@app.command(epilog=examples("apply api_gateway", "apply api_gateway --dry-run", "apply my_api/my_api.py"))
def apply(
    blueprint: BlueprintName,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and change nothing.")] = False,
    unarchive: Annotated[bool, typer.Option("--unarchive", help="Take archived meters back into use.")] = False,
) -> None:
    """Create the meters of a blueprint on METERING_API_URL; run twice, it changes nothing.

    What a meter measures never changes after its creation. Where a meter of the same name measures something else,
    nothing is created at all.
    """
    definition = find_blueprint(blueprint)
    url, key = address()
    with MeteringClient(url, key, pace=Pace(), longest_pause=LONGEST_PAUSE) as client:
        found = standings(client, definition.meters)
        problems = [problem for standing in found if (problem := _problem(standing, unarchive=unarchive))]
        table = columns("Meter", "Aggregation", "State")
        for standing in found:
            state = _todo(standing) if dry_run or problems else _done(client, standing)
            how = standing.meter.aggregation
            table.add_row(plain(standing.meter.name), f"{how.type}({how.key or ''})", state)
    out.print(f"The meters of {definition.slug} at {url}\n")
    out.print(table)
    if problems:
        raise MeterprintError("nothing was created:\n  " + "\n  ".join(problems))
    out.print(f"\nTo see that they bill what they should:  meterprint verify {blueprint}")


def _problem(standing: Standing, *, unarchive: bool) -> str | None:
    """What keeps a meter from being created, and what to do about it."""
    name, found = standing.meter.name, standing.found
    if standing.state == "different" and found:
        said = "; ".join(differences(standing.meter, found))
        return (
            f"another meter is named {name!r} ({found.id}): {said}. A definition never changes: rename that meter "
            f"(PATCH /meters/{found.id}) or archive it (DELETE), or name yours otherwise in a blueprint of your own"
        )
    if standing.state == "archived" and found and not unarchive:
        return f"{name!r} ({found.id}) is archived: `--unarchive` takes it back into use, with what it has measured"
    return None


def _todo(standing: Standing) -> str:
    return {
        "missing": "not there",
        "there": "already there",
        "archived": "there, but archived",
        "different": "[red]another definition[/red]",
    }[standing.state]


def _done(client: MeteringClient, standing: Standing) -> str:
    if standing.state == "missing":
        create(client, standing.meter)
        return "[green]created[/green]"
    if standing.state == "archived" and standing.found:
        client.unarchive_meter(standing.found.id or "")
        return "[green]back in use[/green]"
    return "already there"


@app.command(epilog=examples("verify api_gateway", "verify my_api/my_api.py"))
def verify(
    blueprint: BlueprintName,
    customer: Annotated[str, typer.Option(help="Whose usage it becomes, instead of a new customer's.")] = "",
    wait: Annotated[float, typer.Option(help="Seconds that events may take to become visible.", min=0)] = WAIT,
    yes_live: Annotated[
        bool, typer.Option("--yes-live", help="Send it to a host that is not known to be for tests, too.")
    ] = False,
) -> None:
    """Send a blueprint's sample usage to METERING_API_URL, read it back, and compare it with the definition.

    Every meter and every line of the invoice must be right; else it names what differs, with the likely causes, and
    ends with status 1. A hosted metering API is read by its list of events, slowly enough for its rate limit.
    """
    definition = find_blueprint(blueprint)
    url, key = address()
    local = not is_live(url) and is_local(url)
    if may_bill(url) and not local and not yes_live:
        raise ConfigurationError(
            f"verify sends usage that never happened, and {url} may bill it: use a test mode, for example "
            "https://test.dodopayments.com, or the local metering API; `--yes-live` sends it all the same"
        )
    customer_id = customer or f"cus_verify_{Event.new_id().rpartition('-')[2]}"
    with err.status("looking for the meters ...") as status, _client(url, key, status.update, local=local) as client:
        verdict = verified(client, definition, customer_id, is_local=local, wait=wait, tell=status.update)
    way = "from its meters" if local else "page by page, from its list of events"
    out.print(f"{len(verdict.sent):,} events of {plain(customer_id)} sent to {url}, and read back {way}\n")
    _show(verdict)
    if not verdict.is_right:
        raise MeterprintError(f"it does not bill what {definition.slug} says ({_summary(verdict)})")


def _client(url: str, key: str, tell: Callable[[str], None], *, local: bool) -> MeteringClient:
    if local:
        return MeteringClient(url, key)

    def sleep(seconds: float) -> None:
        if seconds >= 1:
            tell(f"waiting {seconds:.0f} s for the rate limit ...")
        time.sleep(seconds)

    return MeteringClient(url, key, pace=Pace(sleep=sleep), longest_pause=LONGEST_PAUSE, sleep=sleep)


def _show(verdict: Verdict) -> None:
    table = columns("Meter", "Unit", "Expected", "Measured", "", right=("Expected", "Measured"))
    for reading in verdict.readings:
        meter, mark = reading.meter, _OK if reading.is_right else _DIFFERS
        table.add_row(
            plain(meter.name), plain(meter.measurement_unit), f"{reading.expected:,f}", f"{reading.measured:,f}", mark
        )
    out.print(table)
    out.print()
    out.print(_invoice_table(verdict))
    if verdict.wrong:
        heading("What differs")
    for reading in verdict.wrong:
        out.print(f"  {plain(reading.meter.name)}: {reading.expected:,f} expected, {reading.measured:,f} measured")
        for cause in reading.causes:
            out.print(f"    {plain(cause)}")


def _invoice_table(verdict: Verdict) -> Table:
    table = columns("Invoice", "Expected", "Measured", "", "How it comes about", right=("Expected", "Measured"))
    for expected, measured in verdict.lines:
        mark = _OK if measured == expected else _DIFFERS
        name, how = plain(expected.price.meter), (measured or expected).explanation
        table.add_row(name, _amount(expected), _amount(measured), mark, how)
    mark = _OK if verdict.measured == verdict.expected else _DIFFERS
    table.add_row("Total", total_of(verdict.expected), total_of(verdict.measured), mark, "")
    return table


def _amount(line: InvoiceLine | None) -> str:
    return money(line.total, line.price.currency) if line else "none"


def _summary(verdict: Verdict) -> str:
    names = ", ".join(reading.meter.name for reading in verdict.wrong)
    return f"{len(verdict.wrong)} of {len(verdict.readings)} meters: {names}"
