"""Which metering API a command talks to, and which blueprint it is about."""

from __future__ import annotations

import difflib
import os
import runpy
from pathlib import Path
from typing import Annotated

import typer

from ..blueprint import Blueprint
from ..blueprints import BLUEPRINTS
from ..client import KEY_VARIABLE, URL_VARIABLE, environment
from ..errors import ConfigurationError
from ..local.server import DEFAULT_PORT, HOST
from .common import LOCAL_KEY, is_local

BlueprintName = Annotated[
    str, typer.Argument(metavar="BLUEPRINT", help="Its name, or the path of a file that defines a BLUEPRINT.")
]


def address() -> tuple[str, str]:
    """The URL and the key: those of the environment, else of a local metering API at its usual port.

    Raises:
        ConfigurationError: A variable is not set, and no local metering API answers there.
    """
    local = f"http://{HOST}:{DEFAULT_PORT}"
    if not os.environ.get(URL_VARIABLE) and is_local(local):
        return local, os.environ.get(KEY_VARIABLE) or LOCAL_KEY
    return environment()


def find_blueprint(name: str) -> Blueprint:
    """The blueprint of this name, or the BLUEPRINT of the file, or of a folder that `meterprint new` made.

    Raises:
        ConfigurationError: There is none, or its file cannot be loaded.
    """
    if name in BLUEPRINTS:
        return BLUEPRINTS[name]
    path = Path(name)
    if path.is_dir():
        path /= f"{path.resolve().name}.py"
    if path.suffix == ".py" and path.is_file():
        return _loaded(path)
    near = difflib.get_close_matches(name, BLUEPRINTS, n=1, cutoff=0.4)
    advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(BLUEPRINTS)}."
    raise ConfigurationError(f"no blueprint {name!r}: {advice} Or give the path of a file that defines a BLUEPRINT")


def _loaded(path: Path) -> Blueprint:
    try:
        value = runpy.run_path(str(path)).get("BLUEPRINT")
    except Exception as error:
        raise ConfigurationError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(value, Blueprint):
        raise ConfigurationError(f"{path} defines no BLUEPRINT: write `BLUEPRINT = Blueprint(...)`")
    return value
