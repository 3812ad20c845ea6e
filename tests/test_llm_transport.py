"""What passes between an SDK and its provider, byte by byte: nothing changes but what must."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_bench import Bench, buckets, working
from meterprint import Event
from meterprint.blueprints.llm import LLMMeter
from meterprint.blueprints.llm.answer import Request, StreamedAnswer, WholeAnswer
from meterprint.blueprints.llm.events import Events
from meterprint.blueprints.llm.transport import metered

Handler: TypeAlias = Callable[[httpx2.Request], httpx2.Response]

USAGE: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
DONE_USAGE = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}
ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}
SSE = {"content-type": "text/event-stream; charset=utf-8"}


def chunk(content: str | None = None, **fields: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": {"content": content} if content else {}, "finish_reason": None}]
    return {"id": "chatcmpl-abc12345", "object": "chat.completion.chunk", "model": "m", "choices": choices, **fields}


def event(payload: Any, end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(payload, separators=(',', ':'), ensure_ascii=False)}{end}".encode()


TEXTS = ["Héllo", ' "usage":null, ', "世界 usage", 'say "data: [DONE]"\n\n', ""]
PLAIN = b": hello\n\n" + b"".join(event(chunk(text)) for text in TEXTS) + b"data: [DONE]\n\n"
COUNTED = (
    b": hello\n\n"
    + b"".join(event(chunk(text, usage=None)) for text in TEXTS)
    + event(chunk(choices=[], usage=USAGE))
    + b"data: [DONE]\n\n"
)
ANSWER = {"id": "chatcmpl-whole123", "object": "chat.completion", "model": "m", "choices": [], "usage": USAGE}


@pytest.fixture
def bench() -> Iterator[Bench]:
    with working("http://llm.test") as bench:
        yield bench


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


def client_of(bench: Bench, handler: Handler, base_url: str = "http://llm.test/v1", **options: Any) -> openai.OpenAI:
    http = httpx2.Client(transport=httpx2.MockTransport(handler))
    client = openai.OpenAI(api_key="k", base_url=base_url, http_client=http, max_retries=0)
    return bench.meter.wrap(client, **options)


def streamed(client: openai.OpenAI, **options: Any) -> bytes:
    """The bytes of a stream, as the caller gets them."""
    with client.chat.completions.with_streaming_response.create(**ASK, stream=True, **options) as response:
        return b"".join(response.iter_bytes())


def asks_usage(request: httpx2.Request) -> bool:
    return bool((json.loads(request.content).get("stream_options") or {}).get("include_usage"))


def openai_like(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, headers=SSE, stream=Pieces(COUNTED if asks_usage(request) else PLAIN))


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


# The usage that is asked for, and taken out.


def test_the_caller_of_a_stream_gets_the_bytes_that_it_would_have_got(bench: Bench) -> None:
    assert streamed(client_of(bench, openai_like)) == PLAIN
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)
    assert bench.only().event_id == Event.id_for("openai", "chatcmpl-abc12345")


def test_a_caller_who_asks_for_the_usage_gets_it(bench: Bench) -> None:
    assert streamed(client_of(bench, openai_like), stream_options={"include_usage": True}) == COUNTED
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)


@pytest.mark.parametrize("options", [{"include_usage": False}, {"include_obfuscation": False}, None])
def test_other_options_of_a_stream_are_kept(options: Any, bench: Bench) -> None:
    seen: list[Any] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(json.loads(request.content))
        assert request.headers["content-length"] == str(len(request.content))
        return openai_like(request)

    assert streamed(client_of(bench, handler), stream_options=options) == PLAIN
    assert seen[0]["stream_options"] == {**(options or {}), "include_usage": True}
    assert {key: value for key, value in seen[0].items() if key != "stream_options"} == {**ASK, "stream": True}


@given(st.lists(st.integers(0, 2_000), max_size=12), st.sampled_from(["\n\n", "\r\n\r\n"]))
def test_however_the_bytes_are_cut_the_caller_gets_all_but_the_usage(places: list[int], end: str) -> None:
    counted, plain = (text.replace(b"\n\n", end.encode()) for text in (COUNTED, PLAIN))
    answer = StreamedAnswer("chat", hides_usage=True)
    got = b"".join(map(answer.feed, cut(counted, places))) + answer.rest()
    assert got == plain
    reading = answer.read(Request("openai", "chat"), is_whole=True)
    assert reading
    assert (reading[0].input_tokens, reading[0].output_tokens, reading[1]) == (9, 5, [])


@given(st.lists(st.integers(0, 2_000), max_size=12))
def test_however_the_bytes_are_cut_what_is_only_seen_is_given_back_at_once(places: list[int]) -> None:
    answer = StreamedAnswer("chat")
    for piece in cut(COUNTED, places):
        assert answer.feed(piece) is piece
    assert answer.rest() == b""
    reading = answer.read(Request("openai", "chat"), is_whole=True)
    assert reading
    assert reading[0].total_tokens == 14


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\r\n", b"data: x"]), max_size=30), st.lists(st.integers(0, 90)))
def test_events_put_together_are_the_bytes_that_came(parts: list[bytes], places: list[int]) -> None:
    text = b"".join(parts)
    events = Events()
    pieces = [event for piece in cut(text, places) for event in events.feed(piece)]
    assert b"".join(pieces) + events.rest() == text
    bytewise = Events()
    assert pieces == Events().feed(text) == [event for byte in text for event in bytewise.feed(bytes([byte]))]
    assert all(event.endswith((b"\n\n", b"\n\r\n", b"\r\r")) for event in pieces)


@pytest.mark.parametrize("fields", [{"choices": None}, {"choices": []}])
def test_a_last_chunk_without_choices_is_taken_out_however_it_says_so(fields: Any, bench: Bench) -> None:
    shown = event(chunk("Hi"))
    stream = shown + event({**chunk(usage=USAGE), **fields})
    assert streamed(client_of(bench, lambda request: httpx2.Response(200, headers=SSE, stream=Pieces(stream)))) == shown


def test_a_last_chunk_that_has_usage_and_choices_stays(bench: Bench) -> None:
    stream = event(chunk("Hi")) + event(chunk("!", usage=USAGE)) + b"data: [DONE]\n\n"
    client = client_of(bench, lambda request: httpx2.Response(200, headers=SSE, stream=Pieces(stream)))
    assert streamed(client) == stream
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)
    assert bench.only().metadata["estimated"] is False


def test_an_event_without_its_end_is_handed_on_at_the_end(bench: Bench) -> None:
    stream = event(chunk("Hi")) + event(chunk("!"), end="")
    client = client_of(bench, lambda request: httpx2.Response(200, headers=SSE, stream=Pieces(stream)))
    assert streamed(client) == stream


def test_a_server_that_compresses_although_it_should_not_is_understood(bench: Bench) -> None:
    headers = {**SSE, "content-encoding": "gzip"}

    def handler(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx2.Response(200, headers=headers, stream=Pieces(*cut(gzip.compress(COUNTED), [3, 70])))

    assert streamed(client_of(bench, handler)) == PLAIN
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)


def test_a_compression_that_is_not_known_passes_and_is_estimated(bench: Bench) -> None:
    answer = openai_like
    headers = {**SSE, "content-encoding": "rot13"}
    client = client_of(bench, lambda request: httpx2.Response(200, headers=headers, stream=answer(request).stream))
    assert streamed(client) == COUNTED
    assert bench.only().metadata["estimated"] is True


def test_broken_compression_is_the_callers_to_find(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    headers = {**SSE, "content-encoding": "gzip"}
    client = client_of(bench, lambda request: httpx2.Response(200, headers=headers, stream=Pieces(b"no gzip")))
    with pytest.raises(httpx2.DecodingError):
        streamed(client, stream_options={"include_usage": True})
    assert "an answer cannot be read" in caplog.text
    assert bench.only().metadata["estimated"] is True


@pytest.mark.parametrize("status", [400, 422])
def test_a_provider_that_does_not_know_how_to_is_asked_again_without_and_then_no_more(
    status: int, bench: Bench
) -> None:
    seen: list[bool] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(asks_usage(request))
        if seen[-1]:
            return httpx2.Response(status, json={"error": {"message": "Unknown parameter: 'stream_options'"}})
        return openai_like(request)

    client = client_of(bench, handler)
    assert streamed(client) == streamed(client) == PLAIN
    assert seen == [True, False, False]
    (event,) = bench.recorded()  # one, since both have the same id
    assert event.metadata["estimated"] is True


def test_asyncio_does_the_same_with_a_provider_that_does_not_know_how_to(bench: Bench) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(422, text="stream_options") if asks_usage(request) else openai_like(request)

    async def main() -> list[Any]:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
        client = bench.meter.wrap(openai.AsyncOpenAI(api_key="k", base_url="http://llm.test/v1", http_client=http))
        async with client:
            return [item async for item in await client.chat.completions.create(**ASK, stream=True)]

    assert len(asyncio.run(main())) == len(TEXTS)
    assert bench.only().metadata["estimated"] is True


def test_another_refusal_is_the_callers_and_is_not_asked_again(bench: Bench) -> None:
    seen: list[bool] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(asks_usage(request))
        return httpx2.Response(400, json={"error": {"message": "max_tokens is too large"}})

    with pytest.raises(openai.BadRequestError, match="max_tokens is too large") as caught:
        list(client_of(bench, handler).chat.completions.create(**ASK, stream=True))
    assert not asks_usage(caught.value.request)
    assert seen == [True]
    assert bench.recorded() == []


def test_a_body_that_is_signed_stays_as_it_is(bench: Bench) -> None:
    client = client_of(bench, openai_like)
    assert streamed(client, extra_headers={"x-amz-date": "20261124T093000Z"}) == PLAIN
    assert bench.only().metadata["estimated"] is True


def test_azure_is_metered_and_keeps_its_type(bench: Bench) -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(openai_like))
    here: Any = {"azure_endpoint": "https://my.openai.azure.com", "api_version": "2026-10-01", "api_key": "k"}
    client = bench.meter.wrap(openai.AzureOpenAI(**here, http_client=http))
    assert type(client) is openai.AzureOpenAI
    assert streamed(client) == PLAIN
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)
    assert bench.only().metadata["provider"] == "azure"


@pytest.mark.parametrize(
    ("base_url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://api.together.xyz/v1", "together"),
        ("https://my.openai.azure.com/openai/v1", "azure"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini"),
        ("https://notopenrouter.ai/api/v1", "openai"),
        ("http://localhost:8000/v1", "openai"),
    ],
)
def test_the_address_tells_who_answers(base_url: str, provider: str, bench: Bench) -> None:
    client_of(bench, lambda request: httpx2.Response(200, json=ANSWER), base_url).chat.completions.create(**ASK)
    assert bench.only().metadata["provider"] == provider
    assert bench.only().event_id == Event.id_for(provider, "chatcmpl-whole123")


class Cut(Pieces):
    """A stream whose connection breaks."""

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        raise httpx2.ReadError("cut")


def test_a_cut_is_billed_at_once_even_if_the_error_is_kept(bench: Bench) -> None:
    client = client_of(bench, lambda request: httpx2.Response(200, headers=SSE, stream=Cut(event(chunk("Hello")))))
    request = client._client.build_request("POST", "http://llm.test/v1/chat/completions", json={**ASK, "stream": True})
    response = client._client.send(request, stream=True)
    with pytest.raises(httpx2.ReadError) as kept:
        response.read()
    assert kept.value.__traceback__
    assert buckets(bench.only()) == (3, 0, 0, 2, 0)


# Answers in one piece.


def test_json_in_pieces_is_read_at_its_end(bench: Bench) -> None:
    body = json.dumps(ANSWER).encode()
    headers = {"content-type": "application/json"}
    client = client_of(bench, lambda request: httpx2.Response(200, headers=headers, stream=Pieces(*cut(body, [7, 60]))))
    with client.chat.completions.with_streaming_response.create(**ASK) as response:
        assert b"".join(response.iter_bytes()) == body
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)


def test_json_that_nobody_reads_to_its_end_is_estimated(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps({**ANSWER, "choices": [{"message": {"content": "x" * 400}}]}).encode()
    headers = {"content-type": "application/json"}
    client = client_of(bench, lambda request: httpx2.Response(200, headers=headers, stream=Pieces(body[:-70], body)))
    with client.chat.completions.with_streaming_response.create(**ASK) as response:
        next(response.iter_bytes(64))
    assert buckets(bench.only()) == (3, 0, 0, 100, 0)
    assert bench.only().event_id == Event.id_for("openai", "chatcmpl-whole123")
    assert bench.only().metadata["estimated"] is True
    assert not caplog.records


def vectors(number: int) -> bytes:
    data = [{"object": "embedding", "index": index, "embedding": [index / 7] * 3} for index in range(number)]
    return json.dumps({"object": "list", "data": data, "model": "text-embedding-3-small", "usage": USAGE}).encode()


@pytest.mark.parametrize("number", [1, 3_000, 30_000])
@pytest.mark.parametrize("pieces", [1, 40])
def test_of_long_json_only_the_ends_are_kept(number: int, pieces: int) -> None:
    body = vectors(number)
    answer = WholeAnswer()
    for piece in filter(None, cut(body, [len(body) * part // pieces for part in range(pieces)])):
        assert answer.feed(piece) is piece
    if pieces > 1:
        assert sum(map(len, answer._parts)) < 400_000
    reading = answer.read(Request("openai", "embedding"), is_whole=True)
    assert reading
    assert (reading[0].model, reading[0].input_tokens, reading[1]) == ("text-embedding-3-small", 9, [])


def test_the_ids_of_long_json_are_those_at_its_head() -> None:
    item = {"id": "msg_9", "model": "other", "text": "x" * 300_000}
    answer = WholeAnswer()
    answer.feed(json.dumps({"id": "resp_1", "model": "m", "output": [item], "usage": DONE_USAGE}).encode())
    reading = answer.read(Request("openai", "responses"), is_whole=True)
    assert reading
    assert (reading[0].response_id, reading[0].model, reading[0].total_tokens) == ("resp_1", "m", 14)


def test_a_usage_in_what_a_model_wrote_is_not_mistaken_for_its_own() -> None:
    hostile = {"type": "tool_use", "input": {"usage": {"input_tokens": 1_000_000, "output_tokens": 1}}}
    message = {"id": "msg_1", "type": "message", "model": "claude", "content": [hostile, {"text": "x" * 300_000}]}
    answer = WholeAnswer()
    answer.feed(json.dumps({**message, "usage": {"input_tokens": 9, "output_tokens": 5}}).encode())
    reading = answer.read(Request("anthropic", "chat"), is_whole=True)
    assert reading
    assert reading[0].total_tokens == 14


def test_an_answer_that_is_no_json_is_marked_and_names_the_model_of_the_request(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(bench, lambda request: httpx2.Response(200, content=b"RIFF", headers={"content-type": "a/b"}))
    assert client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there").read() == b"RIFF"
    metadata = bench.only().metadata
    assert (metadata["model"], metadata["operation"], metadata["estimated"]) == ("tts-1", "audio", True)
    assert "openai response unknown: it has no usage" in caplog.text


def test_a_form_names_the_model_too(bench: Bench) -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59}
    client = client_of(bench, lambda request: httpx2.Response(200, json={"text": "Hello", "usage": usage}))
    client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("a.wav", b"RIFF"))
    assert buckets(bench.only()) == (14, 0, 0, 45, 0)
    assert bench.only().metadata["model"] == "gpt-4o-transcribe"


def test_a_redirect_is_billed_where_it_ends(bench: Bench) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.startswith("/old"):
            return httpx2.Response(307, headers={"location": "http://llm.test/v1/chat/completions"})
        return httpx2.Response(200, json=ANSWER)

    http = httpx2.Client(transport=httpx2.MockTransport(handler), follow_redirects=True)
    client = openai.OpenAI(api_key="k", base_url="http://llm.test/old/v1", http_client=http)
    bench.meter.wrap(client).chat.completions.create(**ASK)
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)


# Answers that come later.


def response(status: str, usage: Any, *, background: bool = True) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "model": "m",
        "status": status,
        "background": background,
        "output": [],
        "usage": usage,
    }


def test_a_response_in_the_background_is_billed_when_it_is_there(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    states = iter([response("queued", None), response("in_progress", None), *[response("completed", DONE_USAGE)] * 2])
    client = client_of(bench, lambda request: httpx2.Response(200, json=next(states)))
    client.responses.create(model="m", input="Hello", background=True)
    client.responses.retrieve("resp_1")
    assert bench.recorded() == []
    for _ in range(2):
        client.responses.retrieve("resp_1")
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)
    assert not caplog.records


def test_a_stream_of_a_response_in_the_background_is_billed_too(bench: Bench) -> None:
    events = [
        {"type": "response.created", "response": response("in_progress", None)},
        {"type": "response.completed", "response": response("completed", DONE_USAGE)},
    ]
    stream = b"".join(map(event, events))
    client = client_of(bench, lambda request: httpx2.Response(200, headers=SSE, stream=Pieces(stream)))
    assert len(list(client.responses.retrieve("resp_1", stream=True, starting_after=0))) == 2
    assert buckets(bench.only()) == (9, 0, 0, 5, 0)


def test_looking_at_a_response_bills_nothing(bench: Bench) -> None:
    answer = response("completed", DONE_USAGE, background=False)
    client = client_of(bench, lambda request: httpx2.Response(200, json=answer))
    client.responses.retrieve("resp_1")
    stream = event({"type": "response.completed", "response": answer})
    client = client_of(bench, lambda request: httpx2.Response(200, headers=SSE, stream=Pieces(stream)))
    assert len(list(client.responses.retrieve("resp_1", stream=True))) == 1
    assert bench.recorded() == []


@pytest.mark.parametrize("path", ["/files", "/batches", "/chat/completions/chatcmpl-1", "/threads/t/messages"])
def test_what_asks_no_model_bills_nothing(path: str, bench: Bench) -> None:
    client = client_of(bench, lambda request: httpx2.Response(200, json=ANSWER))
    client.post(path, cast_to=object, body={})
    assert bench.recorded() == []


# Our own mistakes.


class Clumsy(str):
    """A customer that breaks whatever touches it."""

    __slots__ = ()

    def __bool__(self) -> bool:
        raise RuntimeError("a bug of ours")


def test_a_bug_of_ours_is_logged_with_the_id_and_the_answer_passes(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(bench, openai_like, customer_id=lambda: Clumsy("cus_ada"))
    assert streamed(client) == PLAIN
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "openai response chatcmpl-abc12345 was not metered"
    assert record.exc_info


class Awkward(httpx2.Headers):
    """Headers that break whatever reads one of them."""

    def get(self, key: str, default: Any = None) -> Any:
        if key in {"content-type", "accept-encoding"}:
            raise RuntimeError("a bug of ours")
        return super().get(key, default)


def test_a_bug_of_ours_before_or_after_the_call_is_logged_and_the_answer_passes(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        answer = openai_like(request)
        answer.headers = Awkward(answer.headers)
        return answer

    def make_awkward(request: httpx2.Request) -> None:
        request.headers = Awkward(request.headers)

    http = httpx2.Client(transport=httpx2.MockTransport(handler))
    tap = LLMMeter(bench.recorder, customer_id="cus_ada").tap()
    metered_http = metered(http, tap)
    request = metered_http.build_request("POST", "http://llm.test/v1/responses", json={"stream": True})
    make_awkward(request)
    assert metered_http.send(request, stream=True).read() == PLAIN
    assert "a call is not metered" in caplog.text
    plain = metered_http.build_request("POST", "http://llm.test/v1/chat/completions", json={"stream": True})
    assert metered_http.send(plain, stream=True).read() == COUNTED
    assert "a response was not metered" in caplog.text


def test_two_meters_on_one_client_do_not_meet(bench: Bench) -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(openai_like))
    client = openai.OpenAI(api_key="k", base_url="http://llm.test/v1", http_client=http)
    ada = bench.meter.wrap(client)
    bob = LLMMeter(bench.recorder, customer_id="cus_bob").wrap(client)
    streamed(ada)
    assert bench.only().customer_id == "cus_ada"
    assert bob is not ada
