"""`meterprint new`: a blueprint of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigurationError
from ..scaffold import files, name_fault
from .common import app, examples, out, plain
from .target import find_blueprint

Into = Annotated[Path | None, typer.Option(help="The folder that it is written to; one of its name, if not given.")]


@app.command(epilog=examples("new orders_api --from api_gateway", "new orders_api --from api_gateway --into billing"))
def new(
    name: Annotated[str, typer.Argument(help="Its name, in snake_case: it becomes a Python module.")],
    like: Annotated[str, typer.Option("--from", metavar="BLUEPRINT", help="The blueprint that it begins as.")],
    into: Into = None,
) -> None:
    """Write a blueprint of your own: definition, snippet, test and page, all passing, to edit.

    It begins as a copy of another one. Its events and meters have names of their own, so that no meter counts the
    events of both.
    """
    if reason := name_fault(name):
        raise ConfigurationError(f"{name!r} cannot be its name: {reason}")
    folder = into or Path(name)
    written = {folder / file: text for file, text in files(find_blueprint(like), name).items()}
    if there := [str(path) for path in written if path.exists()]:
        raise ConfigurationError(f"{there[0]} exists already: give another folder with --into")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in written.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder} ({error}): give another folder with --into") from error
    _say(name, folder)


def _say(name: str, folder: Path) -> None:
    file = folder / f"{name}.py"
    rows = {
        file: "the definition: events, meters, prices, and usage whose bill is known",
        folder / "send_event.py": "sends one event",
        folder / f"test_{name}.py": "holds all of it together, with pytest.ini",
        folder / f"{name}.md": "its page",
    }
    width = max(len(str(path)) for path in rows)
    for path, what in rows.items():
        out.print(f"{plain(path):{width}}   {what}")
    out.print("\nEdit the definition, then:\n")
    for command in (f"pytest {folder}", f"meterprint apply {file}", f"meterprint verify {file}"):
        out.print(f"  {plain(command)}")
