"""The page of the metering API, from its contract: each operation, each object, each error code."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from api_contract import Contract, Example, Node, Operation, anchor, codes, media
from meterprint.tables import table

if TYPE_CHECKING:
    from build_site import Texts

# What a limit counts, by the end of its keywords: minItems and maxItems, minimum and maximum.
_COUNTED = {"Items": "items", "Length": "characters", "Properties": "keys", "imum": ""}


def includes(contract: Contract, texts: Texts) -> dict[str, str]:
    """Everything that the page includes, by file name; and the overview of all paths."""
    page = _Page(contract, texts)
    sections = {tag["name"]: f"api/{anchor(tag['name'].replace(' ', '-'))}.md" for tag in contract.data["tags"]}
    return {
        "paths.md": page.overview(),
        "api/codes.md": page.codes(),
        "api/headers.md": page.headers(),
        "api/objects.md": page.objects(),
        **{file: page.section(tag) for tag, file in sections.items()},
    }


class _Page:
    def __init__(self, contract: Contract, texts: Texts) -> None:
        self._contract = contract
        self._texts = texts

    def overview(self) -> str:
        rows = [
            (
                f"[`{operation.method} {operation.path}`](api.md#{anchor(operation.id)})",
                self._texts(operation.data["summary"]),
            )
            for operation in self._contract.operations
        ]
        return self._table(("Path", "What it does"), rows)

    def section(self, tag: str) -> str:
        operations = [operation for operation in self._contract.operations if tag in operation.data["tags"]]
        return "\n".join(block for operation in operations for block in self._operation(operation))

    def objects(self) -> str:
        schemas = self._contract.component("schemas")
        shown = {name: schema for name, schema in schemas.items() if "properties" in schema and "title" not in schema}
        return "\n".join(
            f"### {name} {{ #{anchor(name)} }}\n\n{self._texts(schema['description'])}\n\n{self._fields(schema)}"
            for name, schema in shown.items()
        )

    def codes(self) -> str:
        rows = [
            (
                f"`{code['const']}`",
                self._texts(code["description"]),
                # A method that a path lacks is no operation, so its status stands beside the code.
                self._statuses(codes, code["const"])
                or ", ".join(f"`{status}`" for status in code.get("x-statuses", ())),
                self._texts("ours" if code.get("x-local") else "Dodo Payments"),
            )
            for code in self._contract.component("schemas")["ErrorCode"]["oneOf"]
        ]
        return self._table(("Code", "Meaning", "Status", "Whose"), rows)

    def headers(self) -> str:
        rows = [
            (f"`{name}`", self._texts(header["description"]), self._statuses(_headers, name))
            for name, header in self._contract.component("headers").items()
        ]
        return self._table(("Header", "Meaning", "Status"), rows)

    def _statuses(self, names: Callable[[Node], list[str]], name: str) -> str:
        """The statuses of the answers that name something."""
        answers = [answer for operation in self._contract.operations for answer in operation.responses.items()]
        found = {status for status, response in answers if name in names(response)}
        return ", ".join(f"`{status}`" for status in sorted(found))

    def _operation(self, operation: Operation) -> Iterator[str]:
        data = operation.data
        yield f"### `{operation.method} {operation.path}` {{ #{anchor(operation.id)} }}\n"
        yield from (f"{self._texts(data[key])}\n" for key in ("summary", "description") if key in data)
        if ours := data.get("x-ours"):
            yield self._label("Our choice")
            yield "\n".join(f"- {self._texts(choice)}" for choice in ours) + "\n"
        if operation.parameters:
            yield self._label("Parameters")
            yield self._parameters(operation)
        if operation.body:
            yield from self._object("Body", operation.body["schema"])
        yield from self._answers(operation)
        yield self._label("Example")
        yield from self._examples(operation)

    def _answers(self, operation: Operation) -> Iterator[str]:
        own: dict[int, Node] = {}
        common: list[str] = []
        for status, response in operation.responses.items():
            if "$ref" in operation.data["responses"][str(status)]:
                common += [f"`{status} {code}`" for code in codes(response)]
            else:
                own[status] = response
        yield self._label("Answer")
        rows = [
            (f"`{status}`", self._texts(response["description"]), self._content(response))
            for status, response in own.items()
        ]
        yield self._table(("Status", "When", "Body"), rows)
        for response in own.values():
            yield from self._inside(media(response))
        yield f"{self._texts('And')} [{self._texts('as elsewhere')}](#errors): {', '.join(common)}.\n"

    def _inside(self, content: Node) -> Iterator[str]:
        """What is in the body of an answer that has no name."""
        if "properties" in content.get("schema", {}) and "$ref" not in content["schema"]:
            yield self._fields(content["schema"])
        if messages := content.get("x-messages"):
            rows = [
                (f"`{name}`", self._texts(message["description"]), self._type({"$ref": message["$ref"]}))
                for name, message in messages.items()
            ]
            yield self._table(("Event", "When", "Data"), rows)

    def _content(self, response: Node) -> str:
        if found := codes(response):
            return ", ".join(f"`{code}`" for code in found)
        if not (content := response.get("content")):
            return self._texts("empty")
        ((kind, body),) = content.items()
        if kind != "application/json":
            return f"`{kind}`"
        return self._type(body["schema"]) if "$ref" in body["schema"] else self._texts("see below")

    def _object(self, label: str, schema: Node) -> Iterator[str]:
        if "$ref" in schema:
            yield f"**{self._texts(label)}**: {self._type(schema)}\n"
            return
        yield self._label(label)
        if "description" in schema:
            yield f"{self._texts(schema['description'])}\n"
        yield self._fields(schema)

    def _parameters(self, operation: Operation) -> str:
        rows = [
            (
                f"`{parameter['name']}`",
                self._texts(parameter["description"]),
                self._type(parameter["schema"])
                + (f", {self._texts('in the path')}" if parameter["in"] == "path" else ""),
                "; ".join(self._limits(parameter["schema"])),
            )
            for parameter in operation.parameters
        ]
        return self._table(("Parameter", "Meaning", "Type", "Limits"), rows)

    def _fields(self, schema: Node) -> str:
        """The fields of an object. Which of them are required is of interest where unknown ones are refused."""
        sent = schema.get("additionalProperties") is False
        rows = []
        for name, node in schema["properties"].items():
            field = self._contract.resolve(node)
            meaning = self._texts(field["description"]) + (f" {self._texts('Ours.')}" if field.get("x-local") else "")
            required = self._texts("yes" if name in schema.get("required", ()) else "no") if sent else ""
            rows.append((f"`{name}`", meaning, self._type(node), "; ".join(self._limits(node)), required))
        return self._table(("Field", "Meaning", "Type", "Limits", "Required"), rows)

    def _type(self, schema: Node) -> str:
        resolved = self._contract.resolve(schema)
        if "$ref" in schema and "properties" in resolved:
            name = resolved.get("title", schema["$ref"].rpartition("/")[2])
            return f"[{name}](#{anchor(name)})"
        if "title" in resolved:
            return self._texts(resolved["title"])
        if "anyOf" in resolved:
            return self._either(self._type(part) for part in resolved["anyOf"])
        if "enum" in resolved or "const" in resolved:
            values = resolved.get("enum", [resolved.get("const")])
            return self._either(f"`{'null' if value is None else value}`" for value in values)
        types = [resolved["type"]] if isinstance(resolved["type"], str) else resolved["type"]
        return self._either(self._named(kind, resolved) for kind in types)

    def _named(self, kind: str, schema: Node) -> str:
        if kind == "array":
            return f"{self._texts('list of')} {self._type(schema['items'])}"
        return "`null`" if kind == "null" else self._texts(kind)

    def _limits(self, schema: Node) -> list[str]:
        resolved = self._contract.resolve(schema)
        if "properties" in resolved or "title" in resolved:
            return []
        found = [text for ending, unit in _COUNTED.items() if (text := self._span(resolved, ending, unit))]
        if "propertyNames" in resolved:
            found.append(f"{self._texts('each key')}: {', '.join(self._limits(resolved['propertyNames']))}")
            value = resolved["additionalProperties"]
            found.append(f"{self._texts('each value')}: {self._type(value)}, {', '.join(self._limits(value))}")
        if "default" in resolved:
            found.append(f"{self._texts('if absent')}: `{json.dumps(resolved['default']).strip(chr(34))}`")
        found += [limit for part in resolved.get("anyOf", ()) for limit in self._limits(part)]
        return list(dict.fromkeys(found))

    def _span(self, schema: Node, ending: str, unit: str) -> str:
        least, most = schema.get(f"min{ending}"), schema.get(f"max{ending}")
        if most is None and (least is None or ending == "Length"):
            return self._texts("not empty") if least else ""
        low, high = (self._texts.number(f"{bound or 0:,}") for bound in (least, most))
        span = f"≤ {high}" if least is None else f"≥ {low}" if most is None else f"{low}–{high}"
        return f"{span} {self._texts(unit)}" if unit else span

    def _examples(self, operation: Operation) -> Iterator[str]:
        examples = list(operation.examples)
        for example in examples:
            block = self._example(example)
            if len(examples) == 1:
                yield block
            else:
                yield f'=== "{self._texts(example.title)}"\n\n{textwrap.indent(block, "    ")}'

    def _example(self, example: Example) -> str:
        request = f"``` bash\n{example.curl}\n```\n"
        title = f"{self._texts('Status')} {example.status}"
        if example.answer is None:
            return f"{request}\n{title}\n"
        kind, text = "json", dump(example.answer)
        if isinstance(example.answer, str):
            kind, text = "text", example.answer.strip()
        return f'{request}\n``` {kind} title="{title}"\n{text}\n```\n'

    def _label(self, text: str) -> str:
        return f"**{self._texts(text)}**\n"

    def _either(self, words: Iterable[str]) -> str:
        *first, last = dict.fromkeys(words)
        return f"{', '.join(first)} {self._texts('or')} {last}" if first else last

    def _table(self, head: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
        """A table without the columns that say nothing."""
        titles = list(head)
        used = [column for column in range(len(titles)) if any(row[column] for row in rows)]
        return table(
            [self._texts(titles[column]) for column in used], [[row[column] for column in used] for row in rows]
        )


def _headers(response: Node) -> list[str]:
    return list(response.get("headers", ()))


def dump(value: Any) -> str:
    """JSON as a page shows it."""
    return json.dumps(value, indent=2, ensure_ascii=False)
