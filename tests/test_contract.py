"""contract/openapi.yaml: a valid document, and true of the local metering API: its paths, its examples, its limits."""

import copy
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from hypothesis import settings
from schemathesis.core.failures import FailureGroup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import api_contract
import api_page
import build_site
from api_contract import Contract, Example, Operation, anchor, media
from conftest import Clock, require_tool
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore


def closed(contract: Contract) -> Contract:
    """The contract with answers that hold nothing that it does not name. To readers it leaves room for more."""
    data: dict[str, Any] = copy.deepcopy(dict(contract.data))
    schemas = list(data["components"]["schemas"].values())
    for operation in Contract(data).operations:
        schemas += [content["schema"] for response in operation.responses.values() if (content := media(response))]
    for schema in schemas:
        if "properties" in schema and "$ref" not in schema:
            schema.setdefault("additionalProperties", False)
    return Contract(data)


CONTRACT = Contract.load()
CLOSED = closed(CONTRACT)
OPERATIONS = {operation.id: operation for operation in CLOSED.operations}
EXAMPLES = [(operation, example) for operation in CLOSED.operations for example in operation.examples]
METER_ID: str = CONTRACT.component("parameters")["MeterId"]["example"]
VOLATILE = ("version", "uptime_seconds")

each_example = pytest.mark.parametrize(
    ("operation", "example"), EXAMPLES, ids=[f"{operation.id}-{example.name}" for operation, example in EXAMPLES]
)


def example_body(operation_id: str) -> Any:
    """The body of the first example request of an operation."""
    body = OPERATIONS[operation_id].body
    assert body
    return next(iter(body["examples"].values()))["value"]


def faults(schema: Mapping[str, Any], value: Any) -> list[str]:
    """Where a value breaks a schema, whose references lead into the contract."""
    whole = {**schema, "components": CLOSED.data["components"]}
    errors = jsonschema_rs.Draft202012Validator(whole, validate_formats=True).iter_errors(value)
    return [f"{error.instance_path}: {error.message}" for error in errors]


# The document


def twice(node: Any) -> list[str]:
    """Keys that stand twice in a mapping: YAML takes the last, in silence."""
    if isinstance(node, yaml.SequenceNode):
        return [key for child in node.value for key in twice(child)]
    if not isinstance(node, yaml.MappingNode):
        return []
    keys = [key.value for key, _ in node.value]
    return [key for key in keys if keys.count(key) > 1] + [key for _, child in node.value for key in twice(child)]


def torn(node: Any) -> list[str]:
    """Keys without a value, outside of examples: a comma in a text without quotes tears it in two."""
    if isinstance(node, list):
        return [key for child in node for key in torn(child)]
    if not isinstance(node, dict):
        return []
    inner = [key for name, child in node.items() if name not in ("example", "value") for key in torn(child)]
    return [key for key, child in node.items() if child is None] + inner


def test_no_key_stands_twice_and_no_text_is_torn() -> None:
    assert twice(yaml.compose(api_contract.FILE.read_text())) == []
    assert torn(CONTRACT.data) == []


def test_a_key_that_stands_twice_and_a_torn_text_are_found() -> None:
    assert twice(yaml.compose("{a: {b: 1, b: 2}, c: [{d: 1, d: 2}]}")) == ["b", "b", "d", "d"]
    assert torn(yaml.safe_load("{a: [{description: One, two}], example: {b: null}}")) == ["two"]


def test_the_contract_is_valid_openapi_3_1() -> None:
    schemathesis.openapi.from_dict(copy.deepcopy(dict(CONTRACT.data))).validate()
    assert CONTRACT.data["openapi"].startswith("3.1.")
    assert len(OPERATIONS) == len(CONTRACT.operations)


def test_a_document_that_is_no_openapi_is_refused() -> None:
    broken = copy.deepcopy(dict(CONTRACT.data))
    del broken["paths"]["/meters"]["get"]["responses"]["200"]["description"]
    with pytest.raises(jsonschema_rs.ValidationError, match="description"):
        schemathesis.openapi.from_dict(broken).validate()


@pytest.mark.parametrize("name", CONTRACT.component("schemas"))
def test_every_schema_is_a_valid_json_schema(name: str) -> None:
    jsonschema_rs.meta.validate(CONTRACT.component("schemas")[name])
    assert isinstance(faults({"$ref": f"#/components/schemas/{name}"}, None), list)  # every reference leads somewhere


def test_the_contract_has_the_version_of_the_package() -> None:
    assert CONTRACT.data["info"]["version"] == version("meterprint")


@each_example
def test_an_example_fits_its_schema_unless_it_shows_what_is_refused(operation: Operation, example: Example) -> None:
    response = media(operation.responses[example.status])
    assert (example.answer is None) == (not response)
    if response:
        assert faults(response["schema"], example.answer) == []
    if operation.body:
        request = operation.body["examples"][example.name]["value"]
        assert (faults(operation.body["schema"], request) == []) == (example.status < 400)


@pytest.mark.parametrize("kind", ["responses", "parameters"])
def test_the_examples_of_shared_components_fit_their_schemas(kind: str) -> None:
    components = [{**item, **media(item)} for item in CONTRACT.component(kind).values()]
    shown = [item for item in components if "example" in item]
    assert len(shown) > 3
    assert [fault for item in shown for fault in faults(item["schema"], item["example"])] == []


def test_every_operation_and_object_has_an_anchor_of_its_own_on_the_page() -> None:
    includes = api_page.includes(CONTRACT, build_site.Texts("en"))
    page = (build_site.ROOT / "docs" / "en" / "api.md").read_text() + "".join(includes.values())
    anchors = re.findall(r"^#+ .*\{ #([\w-]+) \}$", page, re.M)
    assert sorted(set(anchors)) == sorted(anchors)
    assert {anchor(operation.id) for operation in CONTRACT.operations} <= set(anchors)
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= set(anchors)


# The application


@pytest.fixture(scope="module")
def api(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url) as api:
        yield api


def test_the_application_has_the_paths_of_the_contract_and_no_others() -> None:
    routes = {
        (method, route.path.replace(":path}", "}"))
        for route in create_app(MemoryStore()).routes
        if isinstance(route, Route) and route.path != "/" and not route.path.startswith("/dashboard")
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(operation.method, operation.path) for operation in CONTRACT.operations}


@pytest.mark.parametrize("path", CONTRACT.data["paths"])
def test_a_method_that_a_path_lacks_is_refused_with_those_that_it_has(api: httpx.Client, path: str) -> None:
    answer = api.request("TRACE", re.sub(r"{\w+}", "x", path))
    methods = {operation.method for operation in CONTRACT.operations if operation.path == path}
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    # GET /events/ingest reads the event whose id is "ingest".
    methods |= {"GET"} if path == "/events/ingest" else set()
    assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == methods


class World:
    """The world of the examples: one key, one moment, a meter, an event and a subscription."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._meter_id = METER_ID
        self.set_curl("max-time = 10")

    def set_curl(self, option: str) -> None:
        """What curl reads as if it stood in each command: so the commands run as they stand on the page."""
        (self._folder / ".curlrc").write_text(f'silent\nwrite-out = "\\n%{{http_code}}"\n{option}\n')

    def run(self, example: Example) -> tuple[int, str]:
        """The status and the body that a command of the page gets."""
        environment = {"METERING_API_URL": self._url, "METERING_API_KEY": "local", "CURL_HOME": str(self._folder)}
        done = subprocess.run(
            ["bash", "-c", example.curl.replace(METER_ID, self._meter_id)],
            check=False,
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
        )
        body, _, status = done.stdout.rpartition("\n")
        if found := re.search(r"mtr_[0-9a-f]{32}", body):
            self._meter_id = found[0]
        return int(status), re.sub(r"mtr_[0-9a-f]{32}", METER_ID, body)

    def prepare(self, operation_id: str) -> None:
        """Send what the examples of an operation have behind them."""
        earlier = ["createMeter", "ingestEvents", "putSubscription"]
        for name in earlier[: 1 if operation_id == "ingestEvents" else 3]:
            assert self.run(next(OPERATIONS[name].examples))[0] < 300
        if operation_id == "listRejections":
            httpx.get(f"{self._url}/events?page_size=0", headers={"Authorization": "Bearer local"})


@pytest.fixture
def world(tmp_path: Path, clock: Clock) -> Iterator[World]:
    if not shutil.which("curl"):
        require_tool("curl")
    with Server(create_app(MemoryStore(), clock=clock)) as server:
        yield World(server.url, tmp_path)


@each_example
def test_an_example_gets_the_answer_that_stands_beside_it(world: World, operation: Operation, example: Example) -> None:
    world.prepare(operation.id)
    if operation.id == "streamLedger":
        world.set_curl("max-time = 0.3")  # it has no end
    status, body = world.run(example)
    assert status == example.status, body
    if not isinstance(example.answer, dict):
        assert body.strip() == (example.answer or "").strip()
        return
    answer = json.loads(body)
    assert faults(media(operation.responses[status])["schema"], answer) == []
    assert {**answer, **{name: example.answer[name] for name in VOLATILE if name in answer}} == example.answer


def test_every_message_of_the_stream_is_as_the_contract_has_it(served: Server) -> None:
    messages = media(OPERATIONS["streamLedger"].responses[200])["x-messages"]
    events = example_body("ingestEvents")
    headers = {"Authorization": "Bearer the-stream"}
    with httpx.Client(base_url=served.url, headers=headers) as api, api.stream("GET", "/local/stream") as stream:
        assert stream.headers["content-type"].partition(";")[0] == "text/event-stream"
        api.post("/meters", json=example_body("createMeter"))
        for body in (events, events, "no events"):
            api.post("/events/ingest", json=body)
        api.post("/local/clock", json={"advance": 1})
        api.post("/local/reset")
        seen: set[str] = set()
        lines = (line.partition(": ") for line in stream.iter_lines())
        while seen != messages.keys():
            field, _, kind = next(lines)
            if field == "event":
                assert faults({"$ref": messages[kind]["$ref"]}, json.loads(next(lines)[2])) == [], kind
                seen.add(kind)


# Generated requests

CHECKS = {
    "ignored_auth": {"enabled": False},  # any key is right here: each is a ledger of its own
    "allow_header_conformance": {"enabled": False},  # a test of its own, above
}
GENERATION = {"with-security-parameters": False}  # the test sends a key
CONFIG = schemathesis.Config.from_dict({"checks": CHECKS, "generation": GENERATION})
FUZZED = schemathesis.openapi.from_dict(dict(CLOSED.data), config=CONFIG)
KEYS = itertools.count()


def settled(value: Any, ids: Mapping[str, str]) -> Any:
    """The same with ids that exist, so that more of the requests come further than 404."""
    if isinstance(value, list):
        return [settled(item, ids) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: ids[name] if name in ids and isinstance(item, str) and item.strip() else settled(item, ids)
        for name, item in value.items()
    }


def sort_out(case: schemathesis.Case[Any]) -> None:
    """Mend what a JSON Schema cannot ask for."""
    query: Any = case.query
    if "meter_id" in query:
        query.pop("event_name", None)  # a meter and another event name contradict
    if "timezone" in query:
        query["timezone"] = "Asia/Kathmandu"
    body: Any = case.body if isinstance(case.body, dict) else {}
    for name in body.keys() & {"now", "start"}:  # not in any year
        body[name] = body[name] and "2026-01-31T00:00:00Z"
    for index, event in enumerate(body.get("events", ())):
        event["event_id"] += str(index)  # no id twice
        if event.get("timestamp"):
            event["timestamp"] = datetime.now(UTC).isoformat()
    for price in body.get("prices", ()):
        price["currency"] = "USD"  # one for all
        tiers = price.get("tiers") or []
        for index, tier in enumerate(tiers, start=1):
            tier["up_to"] = index if index < len(tiers) else None
        for item in (price, *tiers):  # to a schema, 5.0 is an integer
            item.update({name: int(value) for name, value in item.items() if isinstance(value, float)})


def ids_in(api: httpx.Client, headers: Mapping[str, str]) -> dict[str, str]:
    """The ids of a meter and a subscription in a new ledger."""
    meter_id = api.post("/meters", headers=headers, json=example_body("createMeter")).json()["id"]
    prices = [{"meter_id": meter_id, "price_per_unit": 1}]
    subscription = {"customer_id": "cus_ada", "start": "2026-01-31T00:00:00Z", "prices": prices}
    api.put("/local/subscriptions/sub_ada", headers=headers, json=subscription)
    return {"meter_id": meter_id, "subscription_id": "sub_ada"}


@FUZZED.exclude(operation_id="streamLedger").parametrize()
@settings(max_examples=25, derandomize=True)
def test_generated_requests_get_the_answers_of_the_contract(case: schemathesis.Case[Any], api: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer fuzz-{next(KEYS)}"}  # a ledger of its own: clock and faults stay there
    ids = ids_in(api, headers)
    case.path_parameters = settled(case.path_parameters, ids)
    case.query, case.body = settled(case.query, ids), settled(case.body, ids)
    if case.meta and case.meta.generation.mode.is_positive:
        sort_out(case)
    case.call_and_validate(base_url=str(api.base_url), headers=headers)


# The checks check themselves


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (JSONResponse({"now": "2026-11-24T09:30:00Z", "frozen": True}, 203), "Undocumented status code"),
        (JSONResponse({"now": "2026-11-24T09:30:00Z", "frozen": "no"}), "Response violates schema"),
        (JSONResponse({"now": "half past nine", "frozen": True}), "Response violates schema"),
        (JSONResponse({"now": "2026-11-24T09:30:00Z", "frozen": True, "zone": "UTC"}), "Response violates schema"),
        (JSONResponse({"code": "NOT_FOUND", "message": "no key"}, 401), "Response violates schema"),
        (JSONResponse({"code": "INTERNAL_SERVER_ERROR", "message": "a bug"}, 500), "Server error"),
        (PlainTextResponse("half past nine"), "Undocumented Content-Type"),
    ],
)
def test_an_answer_that_is_not_of_the_contract_is_found(answer: Response, fault: str) -> None:
    async def endpoint(request: Request) -> Response:
        return answer

    case = FUZZED["/local/clock"]["GET"].Case()
    with Server(Starlette(routes=[Route("/local/clock", endpoint)])) as server:
        response = case.call(base_url=server.url)
        with pytest.raises(FailureGroup) as caught:
            case.validate_response(response)
    assert fault in [failure.title for failure in caught.value.exceptions]
