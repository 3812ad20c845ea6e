"""What the commands print that the pages show: each is run against a metering API with nothing in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from meterprint.client import KEY_VARIABLE, URL_VARIABLE
from meterprint.local.app import create_app
from meterprint.local.server import DEFAULT_PORT, HOST, Server
from meterprint.local.store import MemoryStore
from meterprint.testing import InProcess

SNIPPETS = Path(__file__).resolve().parent.parent / "snippets"
CUSTOMER = "cus_verify_5f0c2a9be417"  # in place of that of a run, so that the page stays the same
DEMO = "meterprint demo --seconds 1"
LOG = "responses.jsonl"

_BOOK = "All work and no play. " * 20_000  # 440,000 characters: 110,000 tokens
_TURNS = [("user", "Hello!"), ("assistant", "Good morning."), ("user", "Why is the sky blue?")]
_MESSAGES = [{"role": role, "content": text} for role, text in _TURNS]
_MARK = {"cache_control": {"type": "ephemeral"}}
_CHAT = {
    "model": "gpt-5.4-mini",
    "messages": [{"role": "system", "content": _BOOK}, *_MESSAGES],
    "reasoning_effort": "max",
}
_CLAUDE = {
    "model": "claude-opus-5-5",
    "max_tokens": 1000,
    "system": [{"type": "text", "text": _BOOK, **_MARK}],
    "messages": _MESSAGES,
}
_GEMINI = {
    "systemInstruction": {"parts": [{"text": _BOOK}]},
    "contents": [{"role": role.replace("assistant", "model"), "parts": [{"text": text}]} for role, text in _TURNS],
    "tools": [{"googleSearch": {}}],
    "generationConfig": {"thinkingConfig": {"thinkingLevel": "high"}},
}
# Who asks, where, and what: how the log of `meterprint llm audit` comes about.
_CALLS: list[tuple[str, str, Any]] = [
    *[("cus_ada", "openai/v1/chat/completions", _CHAT)] * 6,
    ("cus_bo", "anthropic/v1/messages", _CLAUDE | {"messages": _MESSAGES[:1]}),
    *[("cus_bo", "anthropic/v1/messages", _CLAUDE)] * 4,
    *[("cus_bo", "gemini/v1beta/models/gemini-3.8-flash:generateContent", _GEMINI)] * 3,
]


def outputs() -> dict[str, str]:
    """What commands print on the pages, by the name of the include."""
    apply, verify, new = (script(f"verify_bill/{name}") for name in ("apply", "verify", "new"))
    with ThreadPoolExecutor() as pool:
        demo = pool.submit(run, create_app(MemoryStore()), {DEMO: 0})
        wrong = pool.submit(run, Stringly(create_app(MemoryStore())), {apply: 0, verify: 1})
        audit = pool.submit(run, create_app(MemoryStore()), {script("llm_audit/audit"): 1}, {LOG: log()})
        right = run(create_app(MemoryStore()), {apply: 0, verify: 0, new: 0})
        return {
            **dict(zip(("apply", "verify", "new"), right, strict=True)),
            "differs": wrong.result()[1],
            "demo": demo.result()[0],
            "llm_audit": audit.result()[0],
        }


def script(name: str) -> str:
    """The command that the page shows."""
    return (SNIPPETS / f"{name}.sh").read_text(encoding="utf-8")


def log() -> str:
    """A log of responses of the stand-ins: one comes twice, and the last line was cut off."""
    headers = {"authorization": "Bearer k", "x-api-key": "k", "x-goog-api-key": "k", "anthropic-version": "2023-06-01"}
    transport = InProcess(create_app(MemoryStore()))
    with httpx.Client(base_url="http://api.test/standins/", headers=headers, transport=transport) as client:
        lines = [
            json.dumps({"customer_id": customer, "response": client.post(path, json=body).raise_for_status().json()})
            for customer, path, body in _CALLS
        ]
    return "\n".join([*lines, lines[0], lines[-1][:200]]) + "\n"


def run(app: Any, commands: Mapping[str, int], files: Mapping[str, str] | None = None) -> list[str]:
    """What each of some commands prints against an application, one after the other.

    Args:
        app: The metering API.
        commands: Each with the exit status that it must end with.
        files: What is in the working folder.
    """
    with Server(app) as api, tempfile.TemporaryDirectory() as folder:
        for name, text in (files or {}).items():
            Path(folder, name).write_text(text, encoding="utf-8")
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
