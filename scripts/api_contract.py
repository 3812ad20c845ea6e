"""What contract/openapi.yaml says, ready to be shown and to be tested: operations, schemas, examples."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import yaml  # type: ignore[import-untyped]  # its types are a package of their own

FILE = Path(__file__).resolve().parent.parent / "contract" / "openapi.yaml"
METHODS = ("get", "post", "put", "patch", "delete")

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """A request of an operation, and the answer to it.

    Attributes:
        name: What the request and its answer are called in the contract.
        title: What it shows.
        curl: The request as a command.
        status: The status of the answer.
        answer: Its body: JSON, text, or None if it has none.
    """

    name: str
    title: str
    curl: str
    status: int
    answer: Any


class Contract:
    """The whole document, or another one of the same form."""

    def __init__(self, data: Node) -> None:
        self.data = data

    @classmethod
    def load(cls) -> Contract:
        """The contract of the metering API."""
        return cls(yaml.safe_load(FILE.read_text(encoding="utf-8")))

    def component(self, kind: str) -> Node:
        """All components of a kind, by name."""
        found: Node = self.data["components"][kind]
        return found

    def resolve(self, node: Node) -> Node:
        """What a reference leads to, with what stands beside it; anything else as it is."""
        if "$ref" not in node:
            return node
        _, _, kind, name = node["$ref"].split("/")
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return {**self.resolve(self.component(kind)[name]), **beside}

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """Every operation, in the order of the document."""
        return tuple(
            Operation(
                self, method, path, item[method], [*item.get("parameters", ()), *item[method].get("parameters", ())]
            )
            for path, item in self.data["paths"].items()
            for method in item
            if method in METHODS
        )


class Operation:
    """One method of one path."""

    def __init__(self, contract: Contract, method: str, path: str, data: Node, parameters: list[Node]) -> None:
        self.contract = contract
        self.method = method.upper()
        self.path = path
        self.data = data
        self.parameters = [contract.resolve(parameter) for parameter in parameters]

    @property
    def id(self) -> str:
        """Its operationId."""
        return str(self.data["operationId"])

    @property
    def needs_key(self) -> bool:
        """Whether it is refused without an API key."""
        return bool(self.data.get("security", self.contract.data["security"]))

    @property
    def body(self) -> Node | None:
        """The media type of its request body: schema and examples."""
        return self.data["requestBody"]["content"]["application/json"] if "requestBody" in self.data else None

    @cached_property
    def responses(self) -> dict[int, Node]:
        """Every answer, by its status."""
        return {int(status): self.contract.resolve(response) for status, response in self.data["responses"].items()}

    @property
    def examples(self) -> Iterator[Example]:
        """Every example request, with its answer."""
        requests = self.body["examples"] if self.body else {"": {}}
        for name, request in requests.items():
            status, answer = self._answer(name)
            yield Example(name, request.get("summary", ""), self._curl(request.get("value")), status, answer)

    def _answer(self, name: str) -> tuple[int, Any]:
        """The status and the body of the answer of this name; without a name, those of the first answer."""
        for status, response in self.responses.items():
            examples = media(response).get("examples", {})
            if name in examples:
                return status, examples[name]["value"]
            if not name:
                return status, media(response).get("example")
        raise KeyError(f"{self.id}: no answer is called {name}")

    def _curl(self, body: Any) -> str:
        words = (
            ["curl"] if self.method == ("POST" if body is not None else "GET") else [f"curl --request {self.method}"]
        )
        if any("text/event-stream" in response.get("content", {}) for response in self.responses.values()):
            words[0] += " --no-buffer"
        words[0] += f' "$METERING_API_URL{self._target()}"'
        if self.needs_key:
            words.append('--header "Authorization: Bearer $METERING_API_KEY"')
        if body is not None:
            words.append('--header "Content-Type: application/json"')
            text = json.dumps(body, indent=2, ensure_ascii=False).replace("\n", "\n  ")
            words.append(f"--data {shlex.quote(text)}")
        return " \\\n  ".join(words)

    def _target(self) -> str:
        given = [parameter for parameter in self.parameters if "example" in parameter]
        path = {parameter["name"]: quote(parameter["example"]) for parameter in given if parameter["in"] == "path"}
        query = {parameter["name"]: parameter["example"] for parameter in given if parameter["in"] == "query"}
        return self.path.format(**path) + (f"?{urlencode(query)}" if query else "")


def media(response: Node) -> Node:
    """The one media type of an answer: schema and examples; empty, if it has no body."""
    return next(iter(response.get("content", {}).values()), {})


def codes(response: Node) -> list[str]:
    """The error codes of an answer."""
    code: Node = media(response).get("schema", {}).get("properties", {}).get("code", {})
    return list(code.get("enum", ()))


def anchor(name: str) -> str:
    """The anchor of an operation or a schema: `ingestEvents` gives `ingest-events`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
