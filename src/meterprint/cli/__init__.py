"""The command line: a module for each group of commands."""

from __future__ import annotations

from importlib import import_module

from ..errors import APIError, MeterprintError

try:
    from .common import LOCAL_KEY, app, err, plain
    from .serving import site_app
except ModuleNotFoundError as error:
    raise SystemExit(
        f"the command line needs the extra `local` ({error}): pip install '.[local]' in a checkout"
    ) from None

__all__ = ["LOCAL_KEY", "app", "main", "site_app"]

for _name in ("serving", "recipes", "bill", "demo", "custom", "letters", "llm"):  # in the order of the help
    import_module(f".{_name}", __name__)


def main() -> None:
    """Run the command line; the console script `meterprint`."""
    try:
        app(prog_name="meterprint")
    except MeterprintError as error:
        advice = ": check METERING_API_KEY" if isinstance(error, APIError) and error.status in (401, 403) else ""
        err.print(f"[bold red]error:[/bold red] {plain(error)}{advice}")
        raise SystemExit(1) from None
