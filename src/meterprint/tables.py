"""A blueprint's definition as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from .blueprint import Blueprint, EventType, Sample
from .meter import Condition, Filter, Meter
from .pricing import invoice, money

_SIGNS = {
    "equals": "=",
    "not_equals": "≠",
    "greater_than": ">",
    "greater_than_or_equals": "≥",
    "less_than": "<",
    "less_than_or_equals": "≤",
    "contains": "∋",
    "does_not_contain": "∌",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]], align: str = "") -> str:
    """A Markdown table; `align` has l or r for each column."""
    titles = list(head)
    rules = ["--:" if side == "r" else "---" for side in align.ljust(len(titles), "l")]
    lines = [titles, rules, *(list(row) for row in rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def how(meter: Meter) -> str:
    """An aggregation as a formula."""
    return f"{meter.aggregation.type}({f'`{meter.aggregation.key}`' if meter.aggregation.key else ''})"


def formula(clause: Filter | Condition, word: Callable[[str], str] = str, *, inner: bool = False) -> str:
    """A filter as a formula; `word` translates `and` and `or`."""
    if isinstance(clause, Condition):
        return f"`{clause.key}` {_SIGNS[clause.operator]} `{json.dumps(clause.value, ensure_ascii=False)}`"
    joined = f" {word(clause.conjunction)} ".join(formula(part, word, inner=True) for part in clause.clauses)
    return f"({joined})" if inner and len(clause.clauses) > 1 else joined


def tables(blueprint: Blueprint) -> dict[str, str]:
    """Every table of a blueprint, in English: of each event, by its name, and `meters`, `samples` and `invoice`."""
    meters = [
        (
            meter.name,
            how(meter),
            f"`{meter.event_name}`" + (f" where {formula(meter.filter)}" if meter.filter else ""),
            meter.measurement_unit,
            meter.description or "",
        )
        for meter in blueprint.meters
    ]
    samples = [
        (f"{sample.times:,}", f"`{sample.event_name}`", " ".join(_told(sample, blueprint.samples)))
        for sample in blueprint.samples
    ]
    return {
        **{kind.name: _fields(kind) for kind in blueprint.events},
        "meters": table(("Meter", "Aggregation", "What it counts", "Unit", "Description"), meters),
        "samples": table(("Number", "Event", "What it says"), samples, align="r"),
        "invoice": _invoice(blueprint),
    }


def _fields(kind: EventType) -> str:
    rows = [
        (
            f"`{field.name}`",
            field.meaning,
            field.type,
            field.unit,
            "yes" if field.required else "no",
            f"`{json.dumps(field.example, ensure_ascii=False)}`",
        )
        for field in kind.fields
    ]
    return table(("Key", "Meaning", "Type", "Unit", "Required", "Example"), rows)


def _told(sample: Sample, samples: Iterable[Sample]) -> list[str]:
    """What tells a sample from the others of its event; all that it says, if there is no other."""
    others = [other.metadata for other in samples if other.event_name == sample.event_name]
    keys = [key for key in sample.metadata if any(key not in o or o[key] != sample.metadata[key] for o in others)]
    return [f"`{key}={json.dumps(sample.metadata[key], ensure_ascii=False)}`" for key in keys or sample.metadata]


def _invoice(blueprint: Blueprint) -> str:
    bill = invoice(blueprint.prices, blueprint.quantities)
    rows = [(line.price.meter, line.explanation, money(line.total, line.price.currency)) for line in bill.lines]
    total = money(bill.total, blueprint.prices[0].currency) if blueprint.prices else "0"
    return table(("Meter", "How the amount comes about", "Amount"), [*rows, ("**Total**", "", f"**{total}**")], "llr")
