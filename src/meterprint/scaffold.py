"""A blueprint of one's own as files: its definition in Python, a snippet, a test and a page."""

from __future__ import annotations

import json
import keyword
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, TypeAlias

from .blueprint import Blueprint, EventType, Sample
from .blueprints import BLUEPRINTS
from .errors import ConfigurationError
from .tables import tables

_WIDTH = 88  # of a line, as Ruff and Black have it where nothing else is set
_INDENT = 4
# How many arguments of a class are clear without their names.
_POSITIONAL = {"Aggregation": 2, "Condition": 3, "Field": 4, "Filter": 2, "Price": 2, "Sample": 2, "Tier": 2}

_Node: TypeAlias = "str | _Group"


def name_fault(name: str) -> str | None:
    """Why a blueprint cannot have this name, or None if it can."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        return "it becomes a Python module: write it in snake_case, for example orders_api"
    if keyword.iskeyword(name):
        return "it is a word of Python's own: choose another"
    if name in BLUEPRINTS:
        return "a blueprint has that name: give yours another"
    spec = find_spec(name)
    if name in sys.stdlib_module_names or (spec and spec.origin):
        return "a Python package has that name, which the module would hide: choose another"
    return None


def files(blueprint: Blueprint, name: str) -> dict[str, str]:
    """The files of a blueprint that is like another one, by their names.

    Args:
        blueprint: The other one.
        name: The slug of the new one: its events and meters are renamed, so that neither counts the other's.
    """
    custom = renamed(blueprint, name)
    return {
        f"{name}.py": definition(custom),
        "send_event.py": _snippet(custom),
        f"test_{name}.py": _TEST.replace("NAME", name),
        f"{name}.md": _page(custom),
        "pytest.ini": "[pytest]\npythonpath = .\n",
    }


def renamed(blueprint: Blueprint, name: str) -> Blueprint:
    """A blueprint under another name, with events and meters of its own names."""
    title = name.replace("_", " ").capitalize()
    events = _event_names([kind.name for kind in blueprint.events], name)
    return replace(
        blueprint,
        slug=name,
        title=title,
        events=tuple(replace(kind, name=events[kind.name]) for kind in blueprint.events),
        meters=tuple(
            replace(meter, name=f"{title}: {meter.name}", event_name=events.get(meter.event_name, meter.event_name))
            for meter in blueprint.meters
        ),
        prices=tuple(replace(price, meter=f"{title}: {price.meter}") for price in blueprint.prices),
        samples=tuple(
            replace(sample, event_name=events.get(sample.event_name, sample.event_name)) for sample in blueprint.samples
        ),
        quantities={f"{title}: {meter}": quantity for meter, quantity in blueprint.quantities.items()},
    )


def _event_names(names: Sequence[str], prefix: str) -> dict[str, str]:
    """New names: `api.request` becomes `orders_api.request`, and longer where two would be the same."""
    short = [f"{prefix}.{name.partition('.')[2] or name}" for name in names]
    clash = len(set(short)) < len(short) or set(short) & set(names)
    return dict(zip(names, [f"{prefix}.{name}" for name in names] if clash else short, strict=True))


def definition(blueprint: Blueprint) -> str:
    """The Python module that defines a blueprint, as Ruff formats it."""
    source = _Source(blueprint)
    constants = [
        f"{name} = {_written(source.call(kind), 0, len(name) + 3)}\n"
        for kind, name in zip(blueprint.events, source.constants.values(), strict=True)
    ]
    value = f"BLUEPRINT = {_written(source.call(blueprint), 0, len('BLUEPRINT = '))}\n"
    parts = [
        f'"""The blueprint {blueprint.slug}: what to send, what to create, what it costs."""\n',
        "from decimal import Decimal\n" if source.has_decimals else "",
        _import("meterprint", source.classes),
        *constants,
        value,
    ]
    return "\n".join(part for part in parts if part)


def _import(module: str, names: Iterable[str]) -> str:
    start = f"from {module} import "
    line = start + ", ".join(sorted(names))
    if len(line) <= _WIDTH:
        return f"{line}\n"
    return f"{start}(\n" + "".join(f"{' ' * _INDENT}{name},\n" for name in sorted(names)) + ")\n"


@dataclass(frozen=True, slots=True)
class _Group:
    """What stands on one line, or else one item a line."""

    start: str
    items: list[tuple[str, _Node]]
    end: str
    is_tuple: bool = False


class _Source:
    """The source of values. It notes what the module must import.

    Attributes:
        constants: The name of each event's constant, by the event's name.
        classes: The classes that were named.
        has_decimals: Whether a Decimal was.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        names = [kind.name for kind in blueprint.events]
        self.constants = dict(zip(names, _constants(names), strict=True))
        self.classes: set[str] = set()
        self.has_decimals = False
        self._kinds = {kind.name: kind for kind in blueprint.events}

    def node(self, value: Any) -> _Node:
        """A value as it is written."""
        if isinstance(value, EventType):
            return self.constants[value.name]
        if isinstance(value, Mapping):
            return _Group("{", [(f"{_quoted(key)}: ", self.node(item)) for key, item in value.items()], "}")
        if isinstance(value, (tuple, list)):
            return _Group("(", [("", self.node(item)) for item in value], ")", is_tuple=True)
        if isinstance(value, Decimal):
            self.has_decimals = True
            whole = value == value.to_integral_value()
            return f"Decimal({_literal(int(value)) if whole else _quoted(f'{value:f}')})"
        return self.call(value) if is_dataclass(value) else _literal(value)

    def call(self, value: Any) -> _Group:
        """The call that makes an object, without the arguments that have their default."""
        kind = type(value).__name__
        self.classes.add(kind)
        given = [field for field in fields(value) if field.init and getattr(value, field.name) != _default(field)]
        names = [field.name for field in fields(value)]
        items: list[tuple[str, _Node]] = []
        for position, field in enumerate(given):
            clear = position < _POSITIONAL.get(kind, 0) and names[position] == field.name
            items.append(("" if clear else f"{field.name}=", self._argument(value, field.name)))
        return _Group(f"{kind}(", items, ")")

    def _argument(self, owner: Any, name: str) -> _Node:
        value = getattr(owner, name)
        if name == "event_name" and value in self.constants:
            return f"{self.constants[value]}.name"
        if isinstance(owner, Sample) and name == "metadata" and owner.event_name in self._kinds:
            return self._sample(owner, self._kinds[owner.event_name])
        return self.node(value)

    def _sample(self, sample: Sample, kind: EventType) -> _Node:
        """The metadata by the call that fills in the examples, where that gives them."""
        usual = kind.sample()
        changed = {
            key: value
            for key, value in sample.metadata.items()
            if key not in usual or (type(value), value) != (type(usual[key]), usual[key])
        }
        if usual.keys() - sample.metadata.keys() or not all(_is_argument(key) for key in changed):
            return self.node(sample.metadata)
        items = [(f"{key}=", self.node(value)) for key, value in changed.items()]
        return _Group(f"{self.constants[kind.name]}.sample(", items, ")")


def _constants(names: Sequence[str]) -> list[str]:
    """A constant for each event name: by its last part; by all of it, or by number, where two would be the same."""
    ways = [
        [_constant(name.rpartition(".")[2]) for name in names],
        [_constant(name) for name in names],
        [f"EVENT_{number}" for number, _ in enumerate(names, start=1)],
    ]
    return next(way for way in ways if len(set(way)) == len(way))


def _constant(name: str) -> str:
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").upper()
    return text if text[:1].isalpha() and text != "BLUEPRINT" else f"EVENT_{text}"


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _is_argument(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key) and key != "self"


def _literal(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:_}"
    if not isinstance(value, (int, float, type(None))):
        raise ConfigurationError(f"a definition with {value!r} cannot be written as Python: copy its file by hand")
    return repr(value)


def _quoted(text: str) -> str:
    """A string as Ruff writes it: in double quotes, unless single ones save escapes."""
    double = json.dumps(text, ensure_ascii=False)
    if text.count('"') <= text.count("'"):
        return double
    return "'" + double[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"


def _flat(node: _Node) -> str:
    if isinstance(node, str):
        return node
    text = ", ".join(f"{prefix}{_flat(item)}" for prefix, item in node.items)
    return f"{node.start}{text}{',' if node.is_tuple and len(node.items) == 1 else ''}{node.end}"


def _written(node: _Node, indent: int, column: int, after: int = 0) -> str:
    """A node as it is written.

    Args:
        node: What to write.
        indent: The indent of its line.
        column: Where on the line it begins.
        after: How many characters follow it on the line.
    """
    flat = _flat(node)
    if isinstance(node, str) or not node.items or column + _columns(flat) + after <= _WIDTH:
        return flat
    inner = indent + _INDENT
    lines = [
        f"{' ' * inner}{prefix}{_written(item, inner, inner + _columns(prefix), 1)},\n" for prefix, item in node.items
    ]
    return f"{node.start}\n{''.join(lines)}{' ' * indent}{node.end}"


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(1 + (unicodedata.east_asian_width(char) in "FW") for char in text if not unicodedata.combining(char))


def _snippet(blueprint: Blueprint) -> str:
    kind = blueprint.events[0]
    source = _Source(blueprint)
    constant = source.constants[kind.name]
    event = _Group(
        "Event(",
        [
            ("event_id=", "Event.new_id()"),
            ("customer_id=", '"cus_ada"'),
            ("event_name=", f"{constant}.name"),
            ("metadata=", source.node(kind.sample())),
        ],
        ")",
    )
    return (
        _SNIPPET.replace("EVENT_OF", _written(event, 0, len("event = ")))
        .replace("KIND", kind.name)
        .replace("IMPORT", _import(blueprint.slug, ("BLUEPRINT", constant)))
    )


_SNIPPET = '''\
"""Send one `KIND` event."""

from meterprint import Event, MeteringClient

IMPORT
event = EVENT_OF
BLUEPRINT.check(event)
with MeteringClient.from_env() as metering:
    result = metering.ingest([event])
print(f"{result.ingested_count} event ingested")
'''

_TEST = '''\
"""NAME bills what it says: by its own rules, in a metering API, and on its page."""

import runpy
from pathlib import Path

from meterprint import MeteringClient, invoice
from meterprint.tables import tables
from meterprint.testing import MeteringAPI

from NAME import BLUEPRINT

HERE = Path(__file__).parent


def test_the_definition_agrees_with_itself() -> None:
    events = list(BLUEPRINT.sample_events("cus_ada"))
    for event in events:
        BLUEPRINT.check(event)
    read = {meter.name: meter.measure(events) for meter in BLUEPRINT.meters}
    assert read == BLUEPRINT.quantities
    assert invoice(BLUEPRINT.prices, read).total == BLUEPRINT.invoice_total


def test_the_snippet_sends_an_event_of_the_definition(
    metering_api: MeteringAPI,
) -> None:
    runpy.run_path(str(HERE / "send_event.py"))
    (event,) = metering_api.events
    BLUEPRINT.check(event)


def test_a_metering_api_bills_what_the_definition_says(
    metering_api: MeteringAPI,
) -> None:
    events = list(BLUEPRINT.sample_events("cus_ada"))
    with MeteringClient.from_env() as metering:
        for start in range(0, len(events), 1000):
            metering.ingest(events[start : start + 1000])
    read = {meter.name: metering_api.usage(meter) for meter in BLUEPRINT.meters}
    assert read == BLUEPRINT.quantities
    assert invoice(BLUEPRINT.prices, read).total == BLUEPRINT.invoice_total


def test_the_page_shows_the_definition() -> None:
    page = (HERE / "NAME.md").read_text(encoding="utf-8")
    missing = [table for table in tables(BLUEPRINT).values() if table not in page]
    assert not missing, "put into NAME.md:\\n\\n" + "\\n".join(missing)
'''


def _page(blueprint: Blueprint) -> str:
    shown = tables(blueprint)
    parts = [f"# {blueprint.title}", blueprint.summary, "## What to send"]
    for kind in blueprint.events:
        parts += [f"`{kind.name}`: {kind.meaning}", shown[kind.name].rstrip()]
    parts += ["## What is measured", shown["meters"].rstrip(), "## The sample usage of a customer"]
    parts += [shown["samples"].rstrip(), "## What it costs", shown["invoice"].rstrip(), "## Check it"]
    commands = ("pytest .", f"meterprint apply {blueprint.slug}.py", f"meterprint verify {blueprint.slug}.py")
    return "\n\n".join([*parts, _lines("```sh", *commands, "```")])


def _lines(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)
