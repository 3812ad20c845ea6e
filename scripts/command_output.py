"""What the commands print that the pages show: each is run against a metering API with nothing in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from meterprint.client import KEY_VARIABLE, URL_VARIABLE
from meterprint.local.app import create_app
from meterprint.local.server import DEFAULT_PORT, HOST, Server
from meterprint.local.store import MemoryStore

SNIPPETS = Path(__file__).resolve().parent.parent / "snippets" / "verify_bill"
CUSTOMER = "cus_verify_5f0c2a9be417"  # in place of that of a run, so that the page stays the same
DEMO = "meterprint demo --seconds 1"


def outputs() -> dict[str, str]:
    """What stands on the page "Verify your bill", by the name of the include."""
    apply, verify, new = (script(name) for name in ("apply", "verify", "new"))
    with ThreadPoolExecutor() as pool:
        demo = pool.submit(run, create_app(MemoryStore()), {DEMO: 0})
        wrong = pool.submit(run, Stringly(create_app(MemoryStore())), {apply: 0, verify: 1})
        right = run(create_app(MemoryStore()), {apply: 0, verify: 0, new: 0})
        return {
            **dict(zip(("apply", "verify", "new"), right, strict=True)),
            "differs": wrong.result()[1],
            "demo": demo.result()[0],
        }


def script(name: str) -> str:
    """The command that the page shows."""
    return (SNIPPETS / f"{name}.sh").read_text(encoding="utf-8")


def run(app: Any, commands: Mapping[str, int]) -> list[str]:
    """What each of some commands prints against an application, one after the other.

    Args:
        app: The metering API.
        commands: Each with the exit status that it must end with.
    """
    with Server(app) as api, tempfile.TemporaryDirectory() as folder:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        environment = {**os.environ, "PATH": path, "NO_COLOR": "1", URL_VARIABLE: api.url, KEY_VARIABLE: "local"}
        texts: list[str] = []
        for command, status in commands.items():
            done = subprocess.run(  # noqa: S602  # a command of a page, as its reader runs it
                command,
                check=False,
                shell=True,
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
            )
            if done.returncode != status:
                raise SystemExit(f"`{command.strip()}` ended with status {done.returncode}:\n{done.stdout}")
            texts.append(tidied(done.stdout, api.url))
        return texts


def tidied(text: str, url: str) -> str:
    """An output without what differs from run to run."""
    text = re.sub(r"cus_verify_[0-9a-f]+", CUSTOMER, text.replace(url, f"http://{HOST}:{DEFAULT_PORT}"))
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()) + "\n"


class Stringly:
    """A metering API behind a gateway that makes strings of numbers."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, and write `"response_bytes":2048` as `"response_bytes":"2048"`."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        changed = re.sub(rb'("response_bytes":)(\d+)', rb'\1"\2"', body)

        async def again() -> Any:
            return {"type": "http.request", "body": changed, "more_body": False}

        await self._app(scope, again, send)
