"""`meterprint dead-letters`: what a recorder could not deliver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigurationError, MeterprintError, ValidationError
from ..event import Event, format_timestamp
from ..recorder import Recorder
from ..spool import DeadLetter, dead_letter_files, keep_dead_letters
from .common import app, columns, err, examples, out, plain

_RESEND_TIMEOUT = 30.0  # seconds

dead_letters_app = typer.Typer(help="See the events that a recorder could not deliver, and send them again.")
app.add_typer(dead_letters_app, name="dead-letters", no_args_is_help=True)

SpoolFolder = Annotated[Path, typer.Option("--spool", help="The folder that the recorder has as spool=.")]
EventIds = Annotated[list[str] | None, typer.Argument(metavar="[EVENT_ID]...", help="All, if none is named.")]


@dead_letters_app.command("list", epilog=examples("dead-letters list --spool usage"))
def list_dead_letters(spool: SpoolFolder) -> None:
    """List the dead letters of a spool, oldest first."""
    found = [letter for _, letters in dead_letter_files(spool) for letter in letters]
    table = columns("Event", "Customer", "What", "Given up", "Why")
    for letter in found:
        customer, name = (plain(letter.event.get(key, "")) for key in ("customer_id", "event_name"))
        why = f"{letter.code}: {letter.reason}"
        table.add_row(plain(letter.event_id), customer, name, format_timestamp(letter.at)[:19], plain(why))
    out.print(table if found else f"No dead letters in {spool}.")


@dead_letters_app.command(
    "show", epilog=examples("dead-letters show 01a20f9f-b0f7-7fff-bfff-fffffffffffd --spool usage")
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
    epilog=examples("dead-letters resend --spool usage", "dead-letters resend --restamp --spool usage")
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
        out.print(f"  {plain(letter.event_id)}: {plain(letter.reason)}")
    if refused:
        raise MeterprintError("some are dead letters still: mend what the reasons name")


def _record_again(recorder: Recorder, letter: DeadLetter, refused: dict[str, DeadLetter]) -> None:
    try:
        recorder.record(Event.from_wire(letter.event))
    except ValidationError as error:
        refused[letter.event_id] = replace(letter, code=error.code, reason=str(error))
