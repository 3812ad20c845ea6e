"""`meterprint up` and `serve`: the local metering API, and the site beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Literal

import typer
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from .. import snippets
from ..blueprints import BLUEPRINTS
from ..client import KEY_VARIABLE, URL_VARIABLE, MeteringClient
from ..errors import ConfigurationError, MeterprintError
from ..local.app import create_app
from ..local.server import DEFAULT_PORT, HOST, Server
from ..local.sqlite import SQLiteStore
from ..local.store import MemoryStore, Store
from .common import LOCAL_KEY, Database, Port, app, examples, out

SITE_PORT = 8000
DATABASE = Path(".meterprint", "ledger.db")


@app.command(epilog=examples("up --port 4242 --site-port 8080"))
def up(
    port: Port = DEFAULT_PORT,
    site_port: Annotated[int, typer.Option(help="The port of the site.", min=0, max=65535)] = SITE_PORT,
    db: Database = DATABASE,
) -> None:
    """Build the site, and serve it with the local metering API until Ctrl-C."""
    root = snippets.find_root()
    _allow_many_connections()
    with (
        closing(_opened(db)) as store,
        Server(create_app(store), port) as api,
        Server(site_app(root / "site"), site_port, option="--site-port") as site,
    ):
        _build_site(root, site.url)
        _create_meters(api.url)
        out.print(f"\nThe guides          [bold]{site.url}/[/bold]")
        _show_until_stopped(lambda: _show_api(api.url, db))


@app.command(epilog=examples("serve", "serve --memory --port 4242", "serve --db usage.db --rate-limit tier0"))
def serve(
    *,
    port: Port = DEFAULT_PORT,
    db: Database = DATABASE,
    memory: Annotated[bool, typer.Option("--memory", help="Keep nothing when it ends.")] = False,
    rate_limit: Annotated[
        Literal["tier0"] | None,
        typer.Option(help="Hold each key to the hosted API's limit: 40 requests a second, 240 a minute."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine.")] = HOST,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name that it may be asked by, as in a container.")
    ] = None,
) -> None:
    """Serve the local metering API and its dashboard alone, until Ctrl-C."""
    _allow_many_connections()
    is_private = _address(host).is_loopback
    app = create_app(store := _opened(None if memory else db), rate_limit=rate_limit)
    with closing(store), Server(app, port, host=host, names=allow_host or ()) as api:
        _show_until_stopped(lambda: _show_api(api.url, None if memory else db, None if is_private else host))


def _opened(db: Path | None) -> Store:
    return SQLiteStore(db) if db else MemoryStore()


def _address(host: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(host)
    except ValueError:
        raise ConfigurationError(
            f"--host {host} is no address: give one of this machine, for example {HOST} or 0.0.0.0"
        ) from None


def _allow_many_connections() -> None:
    """Take as many open files as the system allows, so that idle connections do not use them up."""
    with suppress(ImportError, OSError, ValueError):  # not on Windows
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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


def _show_api(url: str, db: Path | None, host: str | None = None) -> None:
    out.print(f"The metering API    [bold]{url}[/bold]   dashboard: [bold]{url}/dashboard[/bold]")
    out.print(f"It keeps its data   {f'in {db}' if db else 'in memory'}\n")
    out.print("To send it events from another terminal:\n")
    out.print(f"  export {URL_VARIABLE}={url}")
    out.print(f"  export {KEY_VARIABLE}={LOCAL_KEY}\n")
    out.print("For a dashboard that is alive, there too:  meterprint demo\n")
    out.print("Ctrl-C stops it. For development only: it is one process on one machine.")
    if host:
        out.print(f"[bold red]Others can reach it[/bold red] at {host}: any key opens a ledger of its own.\n")


def _show_until_stopped(show: Callable[[], None]) -> None:
    """Show something, and wait for Ctrl-C, or for the SIGTERM of a supervisor, which ends it the same way."""
    try:
        # Before its address is known to anybody who could end it.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        show()
        threading.Event().wait()
    except KeyboardInterrupt:
        out.print("\nStopped.")
