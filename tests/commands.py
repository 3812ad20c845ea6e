"""The command line as a user runs it."""

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from meterprint.snippets import find_root

ROOT = find_root()
METERPRINT = str(Path(sys.executable).parent / "meterprint")
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("METERING_")}


def meterprint(
    *words: str, environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [METERPRINT, *words],
        check=False,
        cwd=cwd,
        env={**CLEAN, "COLUMNS": "100", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def running(*words: str, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that serves, and the address of its metering API."""
    with subprocess.Popen(
        [METERPRINT, *words], cwd=cwd, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            for line in process.stdout:
                if found := re.search(r"METERING_API_URL=(\S+)", line):
                    yield process, found[1]
                    break
            else:
                pytest.fail(f"{words} showed no address: {process.stderr and process.stderr.read()}")
        finally:
            process.kill()


def on_a_terminal(*words: str, environment: Mapping[str, str]) -> str:
    """All that a command shows on a terminal, which it must end well."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [METERPRINT, *words],
        env={**CLEAN, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # what Linux answers when the other end is closed
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
        assert process.wait(timeout=60) == 0, shown
    return shown.decode()
