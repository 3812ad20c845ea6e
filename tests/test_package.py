"""The package as a whole: its public names, its version, what it loads, and its layers."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import meterprint

ROOT = Path(__file__).parent.parent


def test_all_names_exactly_the_public_names_in_order() -> None:
    for name in meterprint.__all__:
        getattr(meterprint, name)  # some are loaded when they are first named
    imported = {"Any", "TYPE_CHECKING", "import_module"}
    public = {
        name
        for name, value in vars(meterprint).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    # A function may hide the module of its name; what is not a module is public.
    assert meterprint.__all__ == sorted(public - imported) == dir(meterprint)
    assert len(meterprint.__all__) < 30


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        meterprint.Nonsense  # noqa: B018


def test_every_public_name_is_on_the_reference_page() -> None:
    page = (ROOT / "docs" / "en" / "reference.md").read_text()
    shown = set(re.findall(r"^::: meterprint\.(\w+)$", page, re.M))
    assert shown == set(meterprint.__all__)


def test_the_version_has_its_entry_in_the_changelog() -> None:
    number = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    latest = re.search(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert latest
    assert latest[1] == number == version("meterprint")


def test_the_core_loads_httpx_and_nothing_else_of_others() -> None:
    code = (
        "import sys; before = set(sys.modules); import meterprint, meterprint.blueprints;"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(name for name in names if name not in sys.stdlib_module_names))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    of_httpx = {"anyio", "certifi", "h11", "httpcore", "httpx", "idna", "sniffio", "typing_extensions"}
    # httpx loads its own command line where its optional packages are installed.
    of_httpx |= {"click", "rich", "pygments", "markdown_it", "mdurl", "socksio", "zstandard", "brotli", "h2"}
    assert set(loaded) - of_httpx == {"meterprint"}


def test_the_layers_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-logo"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_registry_address_stands_in_the_lock_of_the_snippets() -> None:
    assert "resolved" not in (ROOT / "snippets" / "package-lock.json").read_text()
