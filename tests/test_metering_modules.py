"""The modules that the Go and TypeScript snippets share pass the tests in their own languages."""

import subprocess

import pytest

from conftest import require_tool
from meterprint.snippets import find_root, find_tool, inherited, tool_environment

SNIPPETS = find_root() / "snippets"
TESTS = {
    "go": ["test", "-C", str(SNIPPETS / "metering"), "-vet=off", "."],
    "node": ["--test", str(SNIPPETS / "metering.test.ts")],
}


@pytest.mark.parametrize("tool", TESTS)
def test_a_shared_module_passes_its_own_tests(tool: str) -> None:
    done = subprocess.run(
        [find_tool(tool) or require_tool(tool), *TESTS[tool]],
        check=False,
        env={**inherited(), **tool_environment(SNIPPETS)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
