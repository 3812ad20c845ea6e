"""`meterprint llm`: what the responses of language models used."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Group
from rich.padding import Padding
from rich.table import Table

from ..audit import Lines, Report
from ..audit import audit as audited
from ..blueprints.llm.definition import BUCKETS
from ..errors import ConfigurationError, MeterprintError
from ..pricing import Invoice, money
from .common import app, columns, err, examples, heading, out, plain
from .target import find_blueprint

_MOST_CUSTOMERS = 10  # that are shown; --json has all
_MOST_LINES = 5  # numbers of repeated lines that are shown
_STEP = 10_000  # lines from one word on the progress to the next
_KEYS = ("responses", *BUCKETS)
_TITLES = ("Responses", "Input", "Cached\ninput", "Cache\nwrite", "Output", "Reasoning")
_NOBODY = "(not named)"

llm_app = typer.Typer(help="Look at what the responses of language models used.")
app.add_typer(llm_app, name="llm", no_args_is_help=True)

File = Annotated[str, typer.Argument(metavar="FILE", help="The log; - for the standard input.")]
Prices = Annotated[
    str,
    typer.Option(metavar="BLUEPRINT", help="Whose prices: the path of a file that defines a BLUEPRINT of your own."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for machines: money in minor units (cents).")]


@llm_app.command(
    epilog=examples(
        "llm audit responses.jsonl",
        "llm audit responses.jsonl --json",
        "llm audit responses.jsonl --prices my_llm/my_llm.py",
        "llm audit - < responses.jsonl",
    )
)
def audit(file: File, prices: Prices = "llm", as_json: AsJson = False) -> None:
    """Add up a log of provider responses: tokens, the bill, and where naive counting differs.

    The log has one JSON object a line: a response as OpenAI, Anthropic, Gemini,
    Groq, OpenRouter, Mistral or another sent it, or a wrapper around one,
    `{"customer_id": "cus_ada", "provider": "groq", "response": {...}}`, of which
    only `response` must be there. The whole log is one billing period.

    A response whose id comes again counts once. Lines that cannot be read are
    named and left out of every sum, and the exit status is then 1. The error of
    a provider is no such line: it used nothing.
    """
    blueprint = find_blueprint(prices)
    with _reading(file) as lines:
        report = audited(lines, blueprint)
    if as_json:
        sys.stdout.write(json.dumps(_for_machines(report)) + "\n")
    else:
        _show(report, blueprint.title)
    if not report.lines.responses:
        raise MeterprintError(
            f"{_name(file)} has no response that can be read: give one JSON object a line, the response as the "
            "provider sent it, with its usage"
        )
    if unread := report.lines.unread:
        raise MeterprintError(
            f"{_count(unread, 'line')} of {report.lines.total:,} could not be read, and no sum has them"
        )


@contextmanager
def _reading(file: str) -> Iterator[Iterable[bytes]]:
    """The lines of a file; on a terminal, it is said how far they are read."""
    try:
        with err.status(f"reading {plain(_name(file))} ...") as status, _opened(file) as source:
            yield _told(source, status.update)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {file} ({error.strerror}): name a file of JSON Lines, or - for the standard input"
        ) from None


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    return nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb")


def _told(source: BinaryIO, tell: Callable[[str], None]) -> Iterator[bytes]:
    size, seen = os.fstat(source.fileno()).st_size, 0
    for number, line in enumerate(source, 1):
        seen += len(line)
        if number % _STEP == 0:
            share = f" ({seen / size:.0%})" if size else ""
            tell(f"{number:,} lines read{share} ...")
        yield line


def _show(report: Report, prices: str) -> None:
    if report.lines.total:
        out.print(_overview(report.lines))
    if report.lines.responses:
        _show_tokens(report)
        heading(f"What it costs at the prices of the blueprint {prices}")
        out.print(_invoices(report))
    if report.differences:
        heading("Where naive counting differs")
        out.print(_differences(report))
    if report.lines.unread:
        heading("Lines that could not be read")
        _show_unread(report.lines)


def _overview(lines: Lines) -> str:
    parts = [f"{_count(lines.total, 'line')}: {_count(lines.responses, 'response')} counted"]
    if lines.repeated:
        numbers = ", ".join(f"{number:,}" for number in lines.first_repeated[:_MOST_LINES])
        more = ", ..." if lines.repeated > _MOST_LINES else ""
        parts.append(f"{lines.repeated:,} repeated and not counted again (line {numbers}{more})")
    if lines.errors:
        parts.append(f"{_count(lines.errors, 'error')} of a provider, which used nothing")
    if lines.unread:
        parts.append(f"{lines.unread:,} that could not be read")
    if lines.without_id:
        parts.append(f"{lines.without_id:,} without an id, counted as often as logged")
    return "\n  ".join(parts)


def _show_tokens(report: Report) -> None:
    models = {f"{provider} {model}": tokens for (provider, model), tokens in sorted(report.models.items())}
    heading("Tokens by model")
    total = sum(models.values(), Counter[str]())
    out.print(_tokens("Model", models | ({"Total": total} if len(models) > 1 else {})))
    if set(report.customers) != {""}:
        heading("Tokens by customer")
        shown, others = _largest(report)
        rows = {customer or _NOBODY: report.customers[customer] for customer in shown}
        rest = sum((report.customers[customer] for customer in others), Counter[str]())
        out.print(_tokens("Customer", rows | ({f"{len(others):,} others": rest} if others else {})))


def _largest(report: Report) -> tuple[list[str], list[str]]:
    """The customers with the largest bills, and the others."""
    ordered = sorted(report.bills, key=lambda customer: (-report.bills[customer].total, customer))
    return ordered[:_MOST_CUSTOMERS], ordered[_MOST_CUSTOMERS:]


def _tokens(title: str, rows: Mapping[str, Counter[str]]) -> Table:
    cells = [[_clean(name), *(f"{tokens[key]:,}" for key in _KEYS)] for name, tokens in rows.items()]
    return _table((title, *_TITLES), cells)


def _invoices(report: Report) -> Table:
    table = columns("Invoice", "Amount", "How it comes about", right=("Amount",))
    shown, others = _largest(report)
    is_grouped = set(report.bills) != {""}
    for customer in shown:
        bill = report.bills[customer]
        if is_grouped:
            table.add_row(_clean(customer or _NOBODY), money(bill.total, report.currency), "")
        for line in bill.lines:
            if line.consumed:
                name = ("  " if is_grouped else "") + plain(line.price.meter)
                table.add_row(name, money(line.total, report.currency), line.explanation)
    if others:
        rest = sum(report.bills[customer].total for customer in others)
        table.add_row(f"{len(others):,} others", money(rest, report.currency), "")
    table.add_row("Total", money(report.total, report.currency), "")
    return table


def _differences(report: Report) -> Table:
    titles = ("Naive way", "Responses", "Right\ntokens", "Naive\ntokens", "Right\nbill", "Naive\nbill")
    rows = [
        [
            Group(found.way.title, Padding(f"[dim]{found.way.reason}[/dim]", (0, 0, 0, 2))),
            *(f"{number:,}" for number in (found.responses, found.right, found.counted)),
            *(money(total, report.currency) for total in (report.total, found.total)),
        ]
        for found in report.differences
    ]
    return _table(titles, rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table of words in its first column, and of numbers in the others, which no narrow terminal breaks."""
    table = columns(*titles, right=tuple(titles[1:]))
    for index, column in enumerate(table.columns[1:], 1):
        column.min_width = max(len(row[index]) for row in rows)
    for row in rows:
        table.add_row(*row)
    return table


def _show_unread(lines: Lines) -> None:
    for unread in lines.first_unread:
        out.print(f"  line {unread.line:,}: {plain(unread.reason)}")
    if more := lines.unread - len(lines.first_unread):
        out.print(f"  and {more:,} more")


def _for_machines(report: Report) -> dict[str, Any]:
    lines = dataclasses.asdict(report.lines)
    return {
        "lines": lines,
        "models": [
            {"provider": provider, "model": model, **_numbers(tokens)}
            for (provider, model), tokens in sorted(report.models.items())
        ],
        "customers": [
            {"customer_id": customer or None, **_numbers(tokens), "invoice": _invoice(report.bills[customer])}
            for customer, tokens in sorted(report.customers.items())
        ],
        "total": report.total,
        "currency": report.currency,
        "differences": [
            {
                "way": found.way.key,
                "responses": found.responses,
                "right_tokens": found.right,
                "naive_tokens": found.counted,
                "naive_total": found.total,
            }
            for found in report.differences
        ],
    }


def _numbers(tokens: Counter[str]) -> dict[str, int]:
    return {key: tokens[key] for key in _KEYS}


def _invoice(bill: Invoice) -> dict[str, Any]:
    lines = [
        {
            "meter": line.price.meter,
            "consumed_units": f"{line.consumed:f}",
            "chargeable_units": f"{line.chargeable:f}",
            "total": line.total,
            "explanation": line.explanation,
        }
        for line in bill.lines
    ]
    return {"total": bill.total, "lines": lines}


def _name(file: str) -> str:
    return "the standard input" if file == "-" else file


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _clean(text: str) -> str:
    """A text from a log, whose control characters do nothing to a terminal."""
    return plain("".join(sign if sign.isprintable() else "\ufffd" for sign in text))
