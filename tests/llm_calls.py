"""The record of the calls of models that the tests made, which the LLM page shows as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_suffix(".json")
SDKS = ("anthropic", "google-genai", "groq", "mistralai", "openai")
_BUCKETS = ("input", "cached", "written", "output", "reasoning")


class Call(NamedTuple):
    """What came of a way to call a model.

    Attributes:
        outcome: passed, failed or skipped.
        buckets: What it had to leave; None if that is no event.
    """

    outcome: str
    buckets: list[int] | None


def is_stale(calls: Mapping[tuple[str, str, str], Call]) -> bool:
    """Whether the record is of other calls than a run that made all of them. UPDATE_RESULTS writes it anew."""
    if not calls:
        return False
    from llm_shapes import SHAPES  # brings every SDK in

    if len(calls) < 2 * len(SHAPES):
        return False
    recorded = _record(calls)
    if os.environ.get("UPDATE_RESULTS"):
        FILE.write_text(json.dumps(recorded, indent=1) + "\n")
    return bool(recorded != json.loads(FILE.read_text()))


def _record(calls: Mapping[tuple[str, str, str], Call]) -> dict[str, Any]:
    made: dict[str, dict[str, Any]] = {}
    for (client, name, side), call in sorted(calls.items()):
        of = made.setdefault(client, {}).setdefault(name, {})
        of[side] = call.outcome
        of["counted"] = None if call.buckets is None else dict(zip(_BUCKETS, call.buckets, strict=True))
    return {"sdks": {name: version(name) for name in SDKS}, "calls": made}
