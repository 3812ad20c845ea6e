"""Draw how the counters of each provider lie over the five buckets. Run it to write the LLM page's pictures anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
NAME = "llm-counters.svg"

# A bucket: its width, its colour.
BUCKETS: Mapping[str, tuple[int, str]] = {
    "Input": (112, "#00796b"),
    "Cached input": (172, "#5cb8ab"),
    "Cache writes": (190, "#b2dfdb"),
    "Output": (148, "#b26a00"),
    "Reasoning": (136, "#f0c27b"),
}
# By provider: a counter, by its path in the usage, and the buckets that it counts. tests/test_llm_usage.py holds
# `usage_of` to it.
COVERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "OpenAI": {
        "prompt_tokens": ("Input", "Cached input", "Cache writes"),
        "completion_tokens": ("Output", "Reasoning"),
        "prompt_tokens_details.cached_tokens": ("Cached input",),
        "prompt_tokens_details.cache_write_tokens": ("Cache writes",),
        "completion_tokens_details.reasoning_tokens": ("Reasoning",),
    },
    "Anthropic": {
        "input_tokens": ("Input",),
        "cache_read_input_tokens": ("Cached input",),
        "cache_creation_input_tokens": ("Cache writes",),
        "output_tokens": ("Output", "Reasoning"),
        "output_tokens_details.thinking_tokens": ("Reasoning",),
    },
    "Gemini": {
        "promptTokenCount": ("Input", "Cached input"),
        "candidatesTokenCount": ("Output",),
        "thoughtsTokenCount": ("Reasoning",),
        "cachedContentTokenCount": ("Cached input",),
    },
}
_LEFT, _TOP, _LINE, _GAP = 16, 16, 24, 26


def draw(texts: Callable[[str], str]) -> str:
    """The picture as SVG.

    Args:
        texts: Gives a text in the language of the page.
    """
    parts: list[str] = []
    y = _TOP
    for provider, counters in COVERS.items():
        parts.append(_text(_LEFT, y + 14, provider, "15", weight="600"))
        y += 24
        parts += _bar(y, {bucket for covered in counters.values() for bucket in covered}, texts)
        y += 40
        rows = _rows(counters)
        for number, row in enumerate(rows):
            parts += [_bracket(y + number * _LINE, name, counters[name]) for name in row]
        y += len(rows) * _LINE + _GAP
    width = 2 * _LEFT + sum(width for width, _ in BUCKETS.values())
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y - 8}"'
    back = f'<rect width="{width}" height="{y - 8}" rx="10" fill="#f4f7f7"/>'
    lines = "\n".join(f"  {part}" for part in (back, *parts))
    return f'{head} font-family="system-ui, sans-serif">\n{lines}\n</svg>\n'


def _rows(counters: Mapping[str, tuple[str, ...]]) -> list[list[str]]:
    """The counters in rows, so that none lies over another."""
    rows: list[list[str]] = []
    for name, covered in counters.items():
        free = (row for row in rows if not any(set(covered) & set(counters[other]) for other in row))
        row = next(free, None)
        if row is None:
            rows.append([name])
        else:
            row.append(name)
    return rows


def _span(buckets: tuple[str, ...]) -> tuple[int, int]:
    """Where some buckets, which lie side by side, begin and end."""
    names = list(BUCKETS)
    start = _LEFT + sum(BUCKETS[name][0] for name in names[: names.index(buckets[0])])
    return start, start + sum(BUCKETS[name][0] for name in buckets)


def _bar(y: int, counted: set[str], texts: Callable[[str], str]) -> list[str]:
    parts = []
    for name, (width, colour) in BUCKETS.items():
        if name not in counted:
            continue
        start, _ = _span((name,))
        is_dark = colour in {"#00796b", "#b26a00"}
        parts.append(f'<rect x="{start}" y="{y}" width="{width}" height="30" fill="{colour}"/>')
        parts.append(
            _text(start + width // 2, y + 20, texts(name), "12.5", "#fff" if is_dark else "#12302c", anchor="middle")
        )
    return parts


def _bracket(y: int, name: str, covered: tuple[str, ...]) -> str:
    start, end = _span(covered)
    line = f'<path d="M{start + 3} {y - 4}v5h{end - start - 6}v-5" fill="none" stroke="#3d5753"/>'
    short = name.rpartition(".")[2]
    return line + _text((start + end) // 2, y + 14, short, "11.5", anchor="middle")


def _text(x: int, y: int, text: str, size: str, colour: str = "#12302c", *, anchor: str = "", weight: str = "") -> str:
    more = (f' text-anchor="{anchor}"' if anchor else "") + (f' font-weight="{weight}"' if weight else "")
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}"{more}>{escape(text)}</text>'


def main() -> None:
    """Write the picture of each language."""
    from build_site import LANGUAGES, Texts

    for language in LANGUAGES:
        (DOCS / language / "assets" / NAME).write_text(draw(Texts(language)), encoding="utf-8")


if __name__ == "__main__":
    main()
