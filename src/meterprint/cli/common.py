"""What the commands share: the application, the consoles, common options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..client import MeteringClient

LOCAL_KEY = "local"

# What goes into a file is as wide as it needs to be: it is searched, not looked at.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
err = Console(highlight=False, soft_wrap=True, stderr=True)


def examples(*commands: str) -> str:
    """The epilog of a command's help."""
    return "\n\n".join(("Examples:", *(f"  meterprint {command}" for command in commands)))


app = typer.Typer(
    help="Executable blueprints for usage-based billing, and a metering API that runs on your own machine.",
    epilog=examples("up", "run api_gateway/first_event --lang go", "verify api_gateway"),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Port = Annotated[int, typer.Option(help="The port of the metering API and its dashboard.", min=0, max=65535)]
Database = Annotated[Path, typer.Option("--db", help="The SQLite file that keeps events and meters.")]


def is_local(url: str) -> bool:
    """Whether a local metering API answers at this address."""
    with MeteringClient(url, LOCAL_KEY, retries=0, timeout=2) as client:
        return client.is_local()


def columns(*titles: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; those named in `right` hold numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left")
    return table


def heading(text: str) -> None:
    """Print what comes next."""
    out.print(f"\n[bold]{plain(text)}[/bold]")


def plain(value: Any) -> str:
    """A text whose brackets are no markup."""
    return str(value).replace("[", r"\[")
