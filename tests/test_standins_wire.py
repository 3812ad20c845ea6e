"""The stand-in providers: keys, errors, the bytes of streams, and all that X-Standin asks for."""

import asyncio
import gzip
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeAlias

import anthropic
import groq
import httpx
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors as gemini_errors
from hypothesis import given, settings
from hypothesis import strategies as st
from mistralai.client import Mistral
from mistralai.client.errors import ResponseValidationError, SDKError
from mistralai.client.utils import BackoffStrategy, RetryConfig
from starlette.applications import Starlette
from starlette.routing import Mount

from meterprint.local.server import Server
from meterprint.local.standins import HEADER, standins
from meterprint.local.standins.behaviour import Faults
from meterprint.testing import InProcess

Json: TypeAlias = dict[str, Any]
Ask: TypeAlias = Callable[..., Any]

SAID = "This is the stand-in's answer to: Why?"
ASK: Any = [{"role": "user", "content": "Why?"}]
CONTENTS: Any = [{"parts": [{"text": "Why?"}]}]
KEYS = {"authorization": "Bearer k", "x-api-key": "k", "x-goog-api-key": "k", "anthropic-version": "2023-06-01"}
GEMINI = "/gemini/v1beta/models/gemini-2.5-flash"
CHAT: Json = {"model": "m", "messages": ASK}
PLAIN: Mapping[str, tuple[str, Json]] = {
    "openai": ("/openai/v1/chat/completions", CHAT),
    "responses": ("/openai/v1/responses", {"model": "m", "input": "Why?"}),
    "groq": ("/groq/openai/v1/chat/completions", CHAT),
    "openrouter": ("/openrouter/v1/chat/completions", CHAT),
    "mistral": ("/mistral/v1/chat/completions", CHAT),
    "anthropic": ("/anthropic/v1/messages", CHAT | {"max_tokens": 64}),
    "gemini": (f"{GEMINI}:generateContent", {"contents": CONTENTS}),
}
STREAMS: Mapping[str, tuple[str, Json]] = {
    name: (path, body | {"stream": True}) for name, (path, body) in PLAIN.items()
} | {"gemini": (f"{GEMINI}:streamGenerateContent?alt=sse", {"contents": CONTENTS})}
KEYS_OF_BODIES = """
    model messages input contents system tools tool_choice toolConfig thinking stream n max_tokens text cache_control
    response_format generationConfig output_config reasoning stream_options instructions encoding_format
"""
KEYS_OF_VALUES = """
    role content type text name function parameters functionDeclarations parts mode input_schema tool_calls arguments
    format schema json_schema properties required items enum anyOf $ref effort thinkingConfig candidateCount
    functionCall functionResponse allowedFunctionNames responseMimeType responseSchema json_object default
"""
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(KEYS_OF_VALUES.split()),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS_OF_VALUES.split()), inner, max_size=4)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(KEYS_OF_BODIES.split()), VALUES)
EVERY = pytest.mark.parametrize("provider", list(PLAIN))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Server(application()) as server:
        yield f"{server.url}/standins"


@pytest.fixture(scope="module")
def raw(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=KEYS, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def keyless(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as client:
        yield client


def application() -> Starlette:
    return Starlette(routes=[Mount("/standins", routes=standins())])


def post(client: httpx.Client, provider: str, words: str = "", **more: Any) -> httpx.Response:
    path, body = PLAIN[provider]
    return client.post(path, json=body | more, headers={HEADER: words})


def stream(client: httpx.Client, provider: str, words: str = "") -> list[bytes]:
    """The events of a stream, as they are on the wire."""
    path, body = STREAMS[provider]
    response = client.post(path, json=body, headers={HEADER: words})
    end = b"\r\n\r\n" if provider == "gemini" else b"\n\n"
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.content.endswith(end)
    return response.content.removesuffix(end).split(end)


def message_of(body: Json) -> str:
    return str(body["message"] if "message" in body else body["error"]["message"])


class Client:
    """One SDK, and how it asks."""

    def __init__(self, name: str, url: str, retries: int = 0, words: str = "") -> None:
        self.headers = {HEADER: words}
        self.client, self.ask, self.stream = getattr(self, f"_{name}")(url, retries)

    def __enter__(self) -> Self:
        self.client.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.__exit__(*exc)

    def _openai(self, url: str, retries: int) -> tuple[Any, Ask, Ask]:
        client: Any = openai.OpenAI(
            api_key="k", base_url=f"{url}/openai/v1", max_retries=retries, default_headers=self.headers
        )
        return self._chat(client)

    def _groq(self, url: str, retries: int) -> tuple[Any, Ask, Ask]:
        client: Any = groq.Groq(api_key="k", base_url=f"{url}/groq", max_retries=retries, default_headers=self.headers)
        return self._chat(client)

    def _chat(self, client: Any) -> tuple[Any, Ask, Ask]:
        def ask(**more: Any) -> Any:
            return client.chat.completions.create(**CHAT, **more)

        def texts() -> Iterator[str]:
            for chunk in ask(stream=True):
                yield chunk.choices[0].delta.content or ""

        return client, lambda: ask().choices[0].message.content, texts

    def _anthropic(self, url: str, retries: int) -> tuple[Any, Ask, Ask]:
        client: Any = anthropic.Anthropic(
            api_key="k", base_url=f"{url}/anthropic", max_retries=retries, default_headers=self.headers
        )

        def texts() -> Iterator[str]:
            for event in client.messages.create(**CHAT, max_tokens=64, stream=True):
                yield getattr(getattr(event, "delta", None), "text", "")

        return client, lambda: client.messages.create(**CHAT, max_tokens=64).content[0].text, texts

    def _mistral(self, url: str, retries: int) -> tuple[Any, Ask, Ask]:
        config = RetryConfig("backoff", BackoffStrategy(1, 10, 1, 5_000), retry_connection_errors=True)
        client: Any = Mistral(api_key="k", server_url=f"{url}/mistral", retry_config=config if retries else None)

        def texts() -> Iterator[str]:
            with client.chat.stream(**CHAT, http_headers=self.headers) as events:
                for event in events:
                    yield event.data.choices[0].delta.content or ""

        def ask() -> Any:
            return client.chat.complete(**CHAT, http_headers=self.headers).choices[0].message.content

        return client, ask, texts

    def _gemini(self, url: str, retries: int) -> tuple[Any, Ask, Ask]:
        options: Any = {
            "base_url": f"{url}/gemini",
            "headers": self.headers,
            "retry_options": {"attempts": retries + 1, "initial_delay": 0.01, "jitter": 0.01},
        }
        client: Any = genai.Client(api_key="k", http_options=options)

        def texts() -> Iterator[str]:
            for chunk in client.models.generate_content_stream(model="gemini-2.0-flash", contents="Why?"):
                yield chunk.text or ""

        return client, lambda: client.models.generate_content(model="gemini-2.0-flash", contents="Why?").text, texts


SDKS = pytest.mark.parametrize("name", ["openai", "groq", "anthropic", "mistral", "gemini"])
IN_SIX_EVENTS = {"anthropic": SAID[:12], "gemini": SAID[:34]}
ERRORS: Mapping[str, Any] = {
    "openai": openai.APIError,
    "groq": groq.APIError,
    "anthropic": anthropic.APIError,
    "mistral": SDKError,
    "gemini": gemini_errors.APIError,
}


SHAPES: Mapping[str, Callable[[Json], bool]] = {
    "openai": lambda body: bool(body["error"]["code"] == "invalid_api_key"),
    "anthropic": lambda body: (body["type"], body["error"]["type"]) == ("error", "authentication_error"),
    "gemini": lambda body: (body["error"]["code"], body["error"]["status"]) == (401, "UNAUTHENTICATED"),
    "openrouter": lambda body: bool(body["error"]["code"] == 401),
    "mistral": lambda body: bool(body["type"] == "unauthorized"),
}


class TestKeys:
    @EVERY
    def test_a_request_without_a_key_is_refused_in_the_providers_shape(
        self, keyless: httpx.Client, provider: str
    ) -> None:
        response = post(keyless, provider)
        body = response.json()
        assert response.status_code == 401
        assert "no API key" in message_of(body)
        assert SHAPES.get(provider, SHAPES["openai"])(body)

    @pytest.mark.parametrize(
        ("provider", "headers", "query"),
        [
            ("gemini", {}, "?key=k"),
            ("gemini", {"x-goog-api-key": "k"}, ""),
            ("anthropic", {"x-api-key": "k", "anthropic-version": "2023-06-01"}, ""),
            ("anthropic", {"authorization": "Bearer k", "anthropic-version": "2023-06-01"}, ""),
            ("openai", {"authorization": "bearer k"}, ""),
        ],
    )
    def test_a_key_may_be_shown_in_each_way_that_the_provider_knows(
        self, keyless: httpx.Client, provider: str, headers: dict[str, str], query: str
    ) -> None:
        path, body = PLAIN[provider]
        assert keyless.post(f"{path}{query}", json=body, headers=headers).status_code == 200

    @pytest.mark.parametrize(
        ("provider", "headers"),
        [
            ("openai", {"authorization": "Bearer"}),
            ("openai", {"authorization": "Basic k"}),
            ("openai", {"x-api-key": "k"}),
            ("gemini", {"authorization": "Bearer k"}),
        ],
    )
    def test_a_key_that_is_empty_or_shown_otherwise_is_none(
        self, keyless: httpx.Client, provider: str, headers: dict[str, str]
    ) -> None:
        path, body = PLAIN[provider]
        assert keyless.post(path, json=body, headers=headers).status_code == 401


class TestRefusals:
    @EVERY
    def test_an_unknown_path_or_method_is_refused_in_the_providers_shape(
        self, raw: httpx.Client, provider: str
    ) -> None:
        path, _ = PLAIN[provider]
        for response in (raw.post(f"{path}/nothing", json={}), raw.get(path)):
            assert response.status_code == 404
            assert path.rpartition(":")[0] in message_of(response.json())

    @EVERY
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"{", "not JSON"),
            (b"[]", "not a JSON object"),
            (b'{"n": NaN}', "NaN is no JSON"),
            (b"{}", "required"),
            (b'{"model": "m", "messages": [], "input": [], "contents": [], "max_tokens": 9}', "required"),
        ],
    )
    def test_a_body_that_is_wrong_is_refused_with_the_reason(
        self, raw: httpx.Client, provider: str, content: bytes, reason: str
    ) -> None:
        headers = {"content-type": "application/json"}
        response = raw.post(PLAIN[provider][0], content=content, headers=headers)
        assert response.status_code == 400
        assert reason in message_of(response.json())

    def test_an_unknown_method_of_gemini_is_refused_with_those_there_are(self, raw: httpx.Client) -> None:
        response = raw.post(f"{GEMINI}:generateMusic", json={"contents": CONTENTS})
        assert (response.status_code, response.json()["error"]["status"]) == (404, "NOT_FOUND")
        assert "streamGenerateContent" in message_of(response.json())

    def test_a_body_that_is_too_large_is_refused(self, raw: httpx.Client) -> None:
        headers = {"content-type": "application/json"}
        response = raw.post(PLAIN["openai"][0], content=b" " * (32 * 1024 * 1024 + 1), headers=headers)
        assert (response.status_code, message_of(response.json())) == (413, "the body is over 32 MiB")

    def test_a_body_that_is_nested_too_deep_is_refused(self, raw: httpx.Client) -> None:
        deep = b'{"model": "m", "messages": [{"content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}"
        headers = {"content-type": "application/json"}
        response = raw.post(PLAIN["openai"][0], content=deep, headers=headers)
        assert (response.status_code, message_of(response.json())) == (400, "the JSON is nested too deep")

    def test_a_body_that_is_not_said_to_be_json_is_refused(self, raw: httpx.Client) -> None:
        response = raw.post(PLAIN["openai"][0], content=json.dumps(CHAT))
        assert response.status_code == 400
        assert "Content-Type: application/json" in message_of(response.json())

    @pytest.mark.parametrize("words", ["eror=429", "error=200", "error", "cut=-1", "bad_usage=odd", "times=", "warm=1"])
    def test_a_word_that_is_not_understood_is_refused_with_those_that_are(self, raw: httpx.Client, words: str) -> None:
        response = post(raw, "openai", words)
        assert response.status_code == 400
        assert HEADER in message_of(response.json())
        assert words.partition("=")[0] in message_of(response.json())

    @given(provider=st.sampled_from(list(PLAIN)), streams=st.booleans(), body=BODIES)
    @settings(max_examples=300)
    def test_no_body_makes_a_standin_fail(self, provider: str, streams: bool, body: Json) -> None:
        path, good = (STREAMS if streams else PLAIN)[provider]
        with httpx.Client(transport=InProcess(application()), base_url="http://standins.test", headers=KEYS) as client:
            for sent in (body, good | body, body | good):
                assert client.post(f"/standins{path}", json=sent).status_code in {200, 400}


class TestBytes:
    @pytest.mark.parametrize("provider", ["openai", "groq", "mistral", "openrouter"])
    def test_openais_shape_has_unnamed_events_and_ends_with_done(self, raw: httpx.Client, provider: str) -> None:
        *events, last = stream(raw, provider)
        assert last == b"data: [DONE]"
        if provider == "openrouter":
            assert events.pop(0) == b": OPENROUTER PROCESSING"
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
        assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"

    def test_openai_says_in_each_chunk_that_the_usage_is_still_to_come(self, raw: httpx.Client) -> None:
        path, body = STREAMS["openai"]
        content = raw.post(path, json=body | {"stream_options": {"include_usage": True}}).content
        *chunks, usage, _ = content.removesuffix(b"\n\n").split(b"\n\n")
        assert all(b'"usage":null' in chunk for chunk in chunks)
        assert b'"choices":[],"usage":{' in usage

    @pytest.mark.parametrize("provider", ["anthropic", "responses"])
    def test_an_event_is_named_by_its_type(self, raw: httpx.Client, provider: str) -> None:
        events = stream(raw, provider)
        for event in events:
            named = re.fullmatch(rb"event: ([a-z_.]+)\ndata: (\{.+\})", event)
            assert named
            assert json.loads(named[2])["type"] == named[1].decode()
        assert b"[DONE]" not in events[-1]
        assert (b"event: ping" in b"".join(events)) is (provider == "anthropic")

    def test_gemini_ends_its_events_with_carriage_returns(self, raw: httpx.Client) -> None:
        events = stream(raw, "gemini")
        texts = [json.loads(event.removeprefix(b"data: "))["candidates"][0]["content"]["parts"][0] for event in events]
        assert "".join(part["text"] for part in texts) == SAID

    @EVERY
    def test_the_same_request_has_the_same_bytes_but_for_ids_and_times(self, raw: httpx.Client, provider: str) -> None:
        first, second = (re.sub(rb"[0-9a-f]{20,}|\d{10}", b"", b"".join(stream(raw, provider))) for _ in range(2))
        assert first == second
        assert SAID.split()[3].encode() in first


class TestErrors:
    @SDKS
    @pytest.mark.parametrize("status", [400, 429, 500, 503, 529])
    def test_an_error_that_was_asked_for_is_raised_by_the_sdk(self, url: str, name: str, status: int) -> None:
        with Client(name, url, words=f"error={status}") as client, pytest.raises(ERRORS[name]) as caught:
            client.ask()
        assert status in (getattr(caught.value, "status_code", None), getattr(caught.value, "code", None))
        assert f"{HEADER} asked for status {status}" in str(caught.value)

    @SDKS
    def test_retries_of_an_sdk_end_with_one_answer(self, url: str, name: str) -> None:
        with Client(name, url, retries=2, words=f"error=503; times=2; key={name}") as client:
            assert client.ask() == SAID
            assert client.ask() == SAID
        with Client(name, url, words=f"error=503; times=2; key={name}") as client:
            for _ in range(2):
                with pytest.raises(ERRORS[name]):
                    client.ask()
            assert client.ask() == SAID

    def test_without_a_word_requests_are_told_apart_by_what_they_are(self, raw: httpx.Client) -> None:
        words = "error=500; times=1"
        assert [post(raw, "openai", words, user=who).status_code for who in "aabba"] == [500, 200, 500, 200, 500]
        other = httpx.Headers({"authorization": "Bearer other", HEADER: words})
        path, body = PLAIN["openai"]
        assert raw.post(path, json=body | {"user": "a"}, headers=other).status_code == 500

    def test_with_a_word_requests_are_told_apart_by_it(self, raw: httpx.Client) -> None:
        words = "error=500; times=2; key=mine"
        assert [post(raw, "openai", words, user=who).status_code for who in "abc"] == [500, 500, 200]

    def test_no_more_than_a_thousand_failing_requests_are_kept(self) -> None:
        faults = Faults()
        assert all(faults.is_due(f"request {number}", 1) for number in range(1001))
        assert faults.is_due("request 0", 1)
        assert not faults.is_due("request 1000", 1)

    def test_what_can_be_tried_again_says_when(self, raw: httpx.Client) -> None:
        headers = post(raw, "openai", "error=429; retry_after=1.5").headers
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1500")
        assert "retry-after" not in post(raw, "openai", "error=500").headers

    @SDKS
    def test_an_error_can_come_in_the_middle_of_a_stream(self, url: str, name: str) -> None:
        received: list[str] = []
        # Mistral's SDK knows of no error in a stream: it fails to read it.
        kind = ResponseValidationError if name == "mistral" else ERRORS[name]
        with Client(name, url, words="error=529; after=6") as client, pytest.raises(kind):
            received.extend(client.stream())
        assert "".join(received) == IN_SIX_EVENTS.get(name, SAID[:30])

    @SDKS
    def test_a_stream_is_refused_before_it_begins_too(self, url: str, name: str) -> None:
        with Client(name, url, words="error=500") as client, pytest.raises(ERRORS[name]):
            next(client.stream())


class TestSending:
    @SDKS
    def test_a_stream_that_is_cut_gives_what_was_sent_and_then_raises(self, url: str, name: str) -> None:
        received: list[str] = []
        kinds = {"openai": openai.APIConnectionError, "groq": httpx.RemoteProtocolError}
        kind = kinds.get(name, httpx2.RemoteProtocolError)
        with Client(name, url, words="cut=6") as client, pytest.raises(kind):
            received.extend(client.stream())
        assert "".join(received) == IN_SIX_EVENTS.get(name, SAID[:30])

    @EVERY
    def test_an_answer_in_one_piece_breaks_midway(self, raw: httpx.Client, provider: str) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            post(raw, provider, "cut=1")

    def test_a_connection_that_broke_before_the_first_byte_is_tried_again(self, url: str) -> None:
        with Client("openai", url, retries=1, words="cut=0; times=1") as client:
            assert client.ask() == SAID

    @pytest.mark.parametrize(("words", "sent"), [("cut=0", 0), ("cut=1", 1), ("cut=4", 4)])
    def test_a_server_that_can_is_told_to_break_the_connection(self, words: str, sent: int) -> None:
        path, body = STREAMS["openai"]
        messages: list[Json] = []
        dropped: list[int] = []
        asked = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])

        async def receive() -> Json:
            return next(asked, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            messages.append(message)

        headers = KEYS | {HEADER.lower(): words, "content-type": "application/json"}
        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/standins{path}",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "extensions": {"meterprint.drop": lambda: dropped.append(len(messages))},
        }
        asyncio.run(application()(scope, receive, send))
        assert dropped == [sent + 1 if sent else 0]
        assert len(messages) == dropped[0]

    @pytest.mark.parametrize("words", ["slow=20", "slow=20; gzip"])
    def test_a_slow_stream_comes_event_by_event(self, raw: httpx.Client, words: str) -> None:
        path, body = STREAMS["openai"]
        arrived: list[float] = []
        start = time.perf_counter()
        with raw.stream("POST", path, json=body, headers={HEADER: words}) as response:
            arrived.extend(time.perf_counter() - start for _ in response.iter_raw())
        assert arrived[0] >= 0.02
        assert len(arrived) >= 5
        assert arrived[-1] - arrived[0] >= 0.02 * 8

    def test_a_slow_stream_ends_when_the_client_leaves(self) -> None:
        with Server(application()) as server:
            with httpx.Client(base_url=f"{server.url}/standins", headers=KEYS) as client:
                path, body = STREAMS["openai"]
                with client.stream("POST", path, json=body, headers={HEADER: "slow=500; words=10000"}) as response:
                    next(response.iter_raw())
            start = time.perf_counter()
        assert time.perf_counter() - start < 1.8  # the server waits 2 s for what goes on

    @EVERY
    def test_the_body_is_compressed_for_who_takes_it(self, raw: httpx.Client, provider: str) -> None:
        path, body = STREAMS[provider]
        packed = {HEADER: "gzip", "accept-encoding": "gzip"}
        with raw.stream("POST", path, json=body, headers=packed) as response:
            compressed = b"".join(response.iter_raw())
        assert response.headers["content-encoding"] == "gzip"
        assert SAID.split()[3].encode() in gzip.decompress(compressed)
        plain = raw.post(path, json=body, headers={HEADER: "gzip", "accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers

    @SDKS
    def test_the_sdks_read_what_is_compressed(self, url: str, name: str) -> None:
        with Client(name, url, words="gzip") as client:
            assert client.ask() == SAID
            assert "".join(client.stream()) == SAID

    def test_an_answer_can_be_long(self, url: str) -> None:
        with Client("openai", url, words="words=1000") as client:
            assert len(client.ask().split()) == 1000
            assert len(list(client.stream())) == 1000 + 2


USAGE = {"anthropic": "usage", "gemini": "usageMetadata"}


class TestUsage:
    @EVERY
    def test_it_can_be_missing(self, raw: httpx.Client, provider: str) -> None:
        answer = post(raw, provider, "no_usage").json()
        assert answer.get(USAGE.get(provider, "usage")) is None
        assert not re.search(rb'"usage(Metadata)?":\{', b"".join(stream(raw, provider, "no_usage")))
        assert re.search(rb'"usage(Metadata)?":\{', post(raw, provider).content)

    @EVERY
    @pytest.mark.parametrize(
        ("words", "is_bad"),
        [
            ("bad_usage", lambda value: value < 0),
            ("bad_usage=negative", lambda value: value < 0),
            ("bad_usage=null", lambda value: value is None),
            ("bad_usage=string", lambda value: isinstance(value, str) and float(value) >= 0),
        ],
    )
    def test_its_numbers_can_be_bad(
        self, raw: httpx.Client, provider: str, words: str, is_bad: Callable[[Any], bool]
    ) -> None:
        key = USAGE.get(provider, "usage")
        good, bad = post(raw, provider).json()[key], post(raw, provider, words).json()[key]
        assert numbers(good)
        assert numbers(bad).keys() == numbers(good).keys()
        assert all(is_bad(bad_value) for name, bad_value in numbers(bad).items() if is_number(numbers(good)[name]))


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def numbers(usage: Any, path: str = "") -> Json:
    """The leaves of a usage, by their paths."""
    if not isinstance(usage, (dict, list)):
        return {path: usage}
    items = usage.items() if isinstance(usage, dict) else enumerate(usage)
    return {name: leaf for key, inner in items for name, leaf in numbers(inner, f"{path}/{key}").items()}
