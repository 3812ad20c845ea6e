"""Whatever goes wrong, a call gives what it would have given, and what was received is billed."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llm_bench import Bench, asked, buckets, serving, standin, working
from llm_shapes import CHAT, CLAUDE, CLIENTS, FLASH, RESPOND, SAID, SHAPES, STREAM, used_up
from meterprint import MeteringClient, Recorder
from meterprint.blueprints.llm import LLMMeter
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.snippets import inherited, program_environment
from meterprint.testing import InProcess

FIRST_AND_STREAM = {"chat.completions.create", "create(stream=True)", "messages.create", "messages.create(stream=True)"}
SDKS = ["openai", "anthropic", "groq", "gemini"]
each_sdk = pytest.mark.parametrize("name", SDKS)
whole_or_stream = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def bench(url: str) -> Iterator[Bench]:
    with working(url) as bench:
        yield bench


def ask(client: Any, name: str, words: str, *, stream: bool = False) -> Any:
    """Ask with a header for the stand-in, and without trying again."""
    if name == "gemini":
        config = {**FLASH["config"], "http_options": {"headers": standin(words)}}
        method = client.models.generate_content_stream if stream else client.models.generate_content
        return method(**{**FLASH, "config": config})
    calm = client.with_options(max_retries=0, default_headers=standin(words))
    if name == "anthropic":
        return calm.messages.create(**CLAUDE, stream=stream)
    return calm.chat.completions.create(**{**CHAT, "model": "gpt-4o"}, stream=stream)


def read(client: Any, name: str, words: str, *, stream: bool) -> Any:
    """Ask, past the SDK's own checks of what is answered."""
    if name == "gemini":
        return asyncio.run(used_up(ask(client, name, words, stream=stream), "value"))
    create = client.messages if name == "anthropic" else client.chat.completions
    body = CLAUDE if name == "anthropic" else {**CHAT, "model": "gpt-4o"}
    with create.with_streaming_response.create(**body, stream=stream, extra_headers=standin(words)) as response:
        return response.read()


def caught(call: Callable[..., Any], *arguments: Any) -> BaseException:
    try:
        call(*arguments)
    except Exception as error:  # noqa: BLE001  # whichever it is, it is to be the same
        return error
    raise AssertionError("nothing went wrong")


def described(error: BaseException) -> tuple[Any, ...]:
    return type(error), re.sub("req_[0-9a-f]+", "", str(error)), type(error.__cause__)


# Failures.


@pytest.mark.parametrize("name", ["openai", "anthropic", "groq"])
def test_what_an_sdk_tries_again_is_billed_once(name: str, bench: Bench) -> None:
    again = standin(f"error=429; times=2; key={name}")
    client = bench.wrapped(name).with_options(default_headers=again)
    for shape in SHAPES:
        if shape.client == name and shape.name in FIRST_AND_STREAM:
            asked(shape, client)
    assert len(bench.recorded()) == 2


@pytest.mark.parametrize("words", ["error=400", "error=401", "error=429", "error=500", "cut=0"])
@each_sdk
def test_failures_pass_through_as_they_are_and_bill_nothing(name: str, words: str, bench: Bench) -> None:
    client = bench.make(name)
    expected, got = (caught(ask, each, name, words) for each in (client, bench.meter.wrap(client)))
    assert described(got) == described(expected)
    assert got.__traceback__
    assert bench.recorded() == []


@pytest.mark.parametrize("words", ["cut=4", "error=529; after=4"])
@each_sdk
def test_a_stream_that_is_cut_raises_as_it_would_and_bills_what_was_received(
    name: str, words: str, bench: Bench
) -> None:
    received: list[list[Any]] = []

    def follow(client: Any) -> None:
        received.append([])
        for chunk in ask(client, name, words, stream=True):
            received[-1].append(chunk)

    client = bench.make(name)
    expected, got = (described(caught(follow, each)) for each in (client, bench.meter.wrap(client)))
    gc.collect()  # Groq's SDK leaves the stream open
    assert got == expected
    assert len(received[0]) == len(received[1]) > 0
    event = bench.only()
    assert event.metadata["estimated"] is True
    assert 0 < int(event.metadata["output_tokens"]) < 14
    assert sum(buckets(event)[:3]) == 1385  # told at the start, or estimated by the text of the prompt


# Broken off.


def test_a_stream_that_is_closed_early_bills_what_was_received(bench: Bench) -> None:
    stream = bench.wrapped("openai").chat.completions.create(**STREAM)
    text = ""
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        if len(text) > 10:
            break
    assert bench.recorded() == []
    stream.close()
    event = bench.only()
    assert buckets(event) == (1385, 0, 0, -(-len(text) // 4), 0)
    assert event.metadata["estimated"] is True


def test_a_stream_that_is_dropped_is_billed_when_it_is_collected(bench: Bench) -> None:
    for chunk in bench.wrapped("openai").chat.completions.create(**STREAM):
        if chunk.choices[0].delta.content:
            break
    gc.collect()
    assert bench.only().metadata["estimated"] is True


@pytest.mark.parametrize("name", SDKS)
def test_a_stream_that_somebody_still_holds_is_billed_before_the_recorder_ends(name: str, url: str) -> None:
    with working(url) as bench:
        stream = ask(bench.wrapped(name), name, "", stream=True)
        next(iter(stream))
        bench.recorder.close()
        (event,) = bench.api.events
    assert event.metadata["estimated"] is True


LEFT = """
import os, signal, sys
from openai import OpenAI
from meterprint import Recorder
from meterprint.blueprints.llm import LLMMeter

client = LLMMeter(Recorder.from_env(), customer_id="cus_ada").wrap(OpenAI())
hello = [{"role": "user", "content": "Hello!"}]
stream = client.chat.completions.create(model="gpt-4o", messages=hello, stream=True)
next(stream)
if sys.argv[1] == "forked":
    child = os.fork()
    if not child:
        sys.exit()  # the stream is the parent's
    os.waitpid(child, 0)
    list(stream)
if sys.argv[1] == "sigterm":
    os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("end", "status", "estimated"),
    [("exit", 0, True), ("sigterm", -signal.SIGTERM, True), ("forked", 0, False)],
)
def test_a_stream_that_is_open_at_the_end_of_its_process_is_billed_by_that(
    end: str, status: int, estimated: bool
) -> None:
    with Server(create_app(MemoryStore())) as api, MeteringClient(api.url, "k") as client:
        environment = {**inherited(), **program_environment(api.url, "k")}
        words = [sys.executable, "-c", LEFT, end]
        done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True)
        events = list(client.events())
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert [event.metadata["estimated"] for event in events] == [estimated]
    assert "closed" not in done.stderr


def test_an_exception_while_a_stream_is_read_passes_through_and_bills_what_was_received(bench: Bench) -> None:
    def follow(client: Any) -> None:
        with client.messages.stream(**CLAUDE) as stream:
            for text in stream.text_stream:
                raise ZeroDivisionError(text)

    assert described(caught(follow, bench.wrapped("anthropic")))[:2] == (ZeroDivisionError, "This ")
    event = bench.only()
    assert buckets(event) == (10, 1375, 0, 2, 0)
    assert event.metadata["estimated"] is True


def test_a_stream_that_nobody_reads_bills_the_prompt(bench: Bench) -> None:
    bench.wrapped("openai").chat.completions.create(**STREAM).close()
    event = bench.only()
    assert buckets(event) == (1385, 0, 0, 0, 0)
    assert event.metadata["model"] == "gpt-5.4-mini"
    assert event.metadata["estimated"] is True


def test_gemini_tells_with_each_chunk_what_was_used_so_far(bench: Bench) -> None:
    stream = bench.wrapped("gemini").models.generate_content_stream(**FLASH)
    first = next(stream)
    used = first.usage_metadata
    del stream, first
    gc.collect()
    event = bench.only()
    assert buckets(event) == (105, 1280, 0, used.candidates_token_count, 64)
    assert event.metadata["estimated"] is True


def test_a_responses_stream_that_is_broken_off_counts_no_text_twice(bench: Bench) -> None:
    stream = bench.wrapped("openai").responses.create(**{**RESPOND, "model": "gpt-4o"}, stream=True)
    for event in stream:
        if event.type == "response.output_item.done":  # the text came four times
            break
    stream.close()
    assert buckets(bench.only()) == (1385, 0, 0, 14, 0)


def test_a_cancelled_task_is_cancelled_and_bills_what_was_received(bench: Bench) -> None:
    async def main() -> int:
        client = CLIENTS["openai"].asynchronous(bench.url)
        wrapped = bench.meter.wrap(client)
        received = asyncio.Event()

        async def read() -> None:
            slow = {"extra_headers": standin("slow=20; words=1000")}
            async for chunk in await wrapped.chat.completions.create(**STREAM, **slow):
                if chunk.choices[0].delta.content:
                    received.set()

        task = asyncio.create_task(read())
        await received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wrapped.close()
        return task.cancelling()

    assert asyncio.run(main()) == 1
    event = bench.only()
    assert event.metadata["estimated"] is True
    assert 0 < int(event.metadata["output_tokens"]) < 100


def test_a_stream_that_is_open_at_the_end_of_the_process_is_billed(url: str) -> None:
    code = f"""
import json, openai
from meterprint import MeteringClient, Recorder
from meterprint.blueprints.llm import LLMMeter
from meterprint.local.app import create_app
from meterprint.local.server import Server
from meterprint.local.store import MemoryStore
from meterprint.snippets import inherited, program_environment
from meterprint.testing import InProcess, MeteringAPI

api = MeteringAPI()
meter = LLMMeter(Recorder(MeteringClient(api.url, api.key, transport=InProcess(api.app))), customer_id="cus_ada")
client = meter.wrap(openai.OpenAI(api_key="k", base_url="{url}/openai/v1"))
stream = client.chat.completions.create(model="gpt-4o", messages=[dict(role="user", content="Hi")], stream=True)
next(stream)
import atexit
atexit._run_exitfuncs()
print([(event.customer_id, event.metadata["estimated"]) for event in api.events])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[('cus_ada', True)]\n"


# Usage that cannot be.


@pytest.mark.parametrize("bad", ["negative", "null", "string"])
@whole_or_stream
@each_sdk
def test_bad_numbers_are_warned_of_once_with_the_id_and_marked(
    name: str, stream: Any, bad: str, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    read(bench.wrapped(name), name, f"bad_usage={bad}", stream=stream)
    assert bench.only().metadata["estimated"] is True
    (warning,) = [record for record in caplog.records if record.name == "meterprint"]
    assert warning.levelno == logging.WARNING
    assert re.match(rf"{name} response \S+: usage", warning.getMessage())
    assert "unknown" not in warning.getMessage()


@whole_or_stream
@each_sdk
def test_an_answer_without_usage_is_estimated_by_its_length(
    name: str, stream: Any, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    read(bench.wrapped(name), name, "no_usage", stream=stream)
    event = bench.only()
    assert event.metadata["estimated"] is True
    assert buckets(event) == (1385, 0, 0, 14, 0)
    assert re.search(rf"{name} response \S+: it has no usage: its event is marked estimated", caplog.text)


@whole_or_stream
@each_sdk
def test_compressed_answers_are_read(name: str, stream: Any, bench: Bench) -> None:
    expected = read(bench.make(name), name, "gzip", stream=stream)
    got = read(bench.wrapped(name), name, "gzip", stream=stream)
    assert len(str(got)) == pytest.approx(len(str(expected)), abs=9)  # as long, but for ids and times
    assert bench.only().metadata["estimated"] is False


# The recorder.


def test_with_the_recorder_closed_calls_go_on_and_each_answer_is_named_in_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    client = bench.wrapped("openai")
    bench.recorder.close()
    answer = client.chat.completions.create(**CHAT)
    chunks = list(client.chat.completions.create(**STREAM))
    assert answer.choices[0].message.content == SAID
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    for response_id in (answer.id, chunks[0].id):
        assert f"openai response {response_id} was not metered: this recorder is closed" in caplog.text


class Broken(Recorder):
    def record(self, *_: object, **__: object) -> None:
        raise MemoryError("no room")


def test_a_recorder_that_fails_changes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with Broken(MeteringClient(bench.api.url, bench.api.key, transport=InProcess(bench.api.app))) as recorder:
        client = LLMMeter(recorder, customer_id="cus_ada").wrap(bench.make("openai"))
        answer = client.chat.completions.create(**CHAT)
        chunks = list(client.chat.completions.create(**STREAM))
    assert answer.choices[0].message.content == SAID
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert caplog.text.count("was not metered") == 2
    assert f"openai response {answer.id} was not metered" in caplog.text


def test_with_the_metering_api_down_calls_take_no_longer(bench: Bench) -> None:
    down = MeteringClient("http://127.0.0.1:9", "k", retries=0)
    with Recorder(down, interval=0.01, shutdown_timeout=0.1) as recorder:
        client = LLMMeter(recorder, customer_id="cus_ada").wrap(bench.make("openai"))
        client.chat.completions.create(**CHAT)
        begun = time.monotonic()
        for _ in range(20):
            assert client.chat.completions.create(**CHAT).choices[0].message.content == SAID
        assert time.monotonic() - begun < 2
