"""`meterprint llm audit`: a log's tokens and bill, where naive counting differs, and the lines that cannot be read."""

import json
import re
import subprocess
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

import command_output
from commands import CLEAN, METERPRINT, meterprint, on_a_terminal
from llm_shapes import CHAT, CLAUDE, CLAUDE_FIRST, LLAMA, LONG, MAGISTRAL, RESPOND, SKY, TALK
from meterprint import ConfigurationError, Price
from meterprint.audit import MOST_NAMED, Report, Unread, audit
from meterprint.blueprints import api_gateway
from meterprint.blueprints.llm import BLUEPRINT, usage_of
from meterprint.blueprints.llm.definition import BUCKETS
from meterprint.local.app import create_app
from meterprint.local.standins import HEADER, standins
from meterprint.local.store import MemoryStore
from meterprint.testing import InProcess

FLASH: Any = {
    "systemInstruction": {"parts": [{"text": LONG}]},
    "contents": [
        {"role": "user", "parts": [{"text": "Hello!"}]},
        {"role": "model", "parts": [{"text": "Good morning."}]},
        {"role": "user", "parts": [{"text": SKY}]},
    ],
}
CHATS, MESSAGES, GENERATE = "chat/completions", "anthropic/v1/messages", "gemini/v1beta/models/{}:generateContent"


def command(log: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, with a log as its standard input."""
    words = [METERPRINT, "llm", "audit", "-", *options]
    return subprocess.run(words, check=False, input=log, env=CLEAN, capture_output=True, text=True, timeout=60)


class Providers:
    """The stand-ins; each answer can be had as a line of a log."""

    def __init__(self) -> None:
        headers = {
            "authorization": "Bearer k",
            "x-api-key": "k",
            "x-goog-api-key": "k",
            "anthropic-version": "2023-06-01",
        }
        transport = InProcess(Starlette(routes=standins()))
        self._client = httpx.Client(base_url="http://standins.test/", headers=headers, transport=transport)

    def ask(self, path: str, body: Any, standin: str = "") -> Any:
        return self._client.post(path, json=body, headers={HEADER: standin}).json()


@pytest.fixture(scope="module")
def providers() -> Providers:
    return Providers()


def line(response: Any, **wrapped: Any) -> bytes:
    return json.dumps({**wrapped, "response": response} if wrapped else response).encode()


def audited(*responses: Any) -> Report:
    return audit(line(response) for response in responses)


def chat(prompt: int, completion: int = 0, *, key: str = "c-1", cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    return {"id": key, "object": "chat.completion", "model": "gpt-5.4-mini", "usage": usage}


def message(fresh: int, read: int, written: int, output: int = 0, *, key: str = "msg_1") -> dict[str, Any]:
    usage = {
        "input_tokens": fresh,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "output_tokens": output,
    }
    return {"id": key, "type": "message", "model": "claude-opus-5-5", "usage": usage}


def generated(prompt: int, *, key: str = "g-1", **counts: int) -> dict[str, Any]:
    candidates = [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]
    usage = {"promptTokenCount": prompt, **counts}
    return {"responseId": key, "modelVersion": "gemini-3.8-flash", "candidates": candidates, "usageMetadata": usage}


def tokens(report: Report) -> dict[tuple[str, str], tuple[int, ...]]:
    """The number of responses and the five buckets, by provider and model."""
    return {key: tuple(sums[name] for name in ("responses", *BUCKETS)) for key, sums in report.models.items()}


def found(report: Report) -> dict[str, tuple[int, int, int, int]]:
    """Of each naive way: the responses, their tokens, the tokens it counts, and the bill it makes."""
    return {one.way.key: (one.responses, one.right, one.counted, one.total) for one in report.differences}


# The right figures


def test_each_provider_gives_the_buckets_that_the_rules_of_its_stand_in_say(providers: Providers) -> None:
    thought = (105, 1280, 0, 14, 64)
    report = audit(
        [
            line(providers.ask(f"openai/v1/{CHATS}", CHAT)),
            line(providers.ask("openai/v1/responses", RESPOND)),
            line(providers.ask("openai/v1/embeddings", {"model": "text-embedding-3-small", "input": [SKY, "Hello!"]})),
            line(providers.ask(MESSAGES, CLAUDE)),
            line(providers.ask(MESSAGES, CLAUDE_FIRST)),
            line(providers.ask(GENERATE.format("gemini-3.8-flash"), FLASH)),
            line(providers.ask(f"groq/openai/v1/{CHATS}", LLAMA), provider="groq"),
            line(providers.ask(f"openrouter/v1/{CHATS}", CHAT), provider="openrouter"),
            line(providers.ask(f"mistral/v1/{CHATS}", MAGISTRAL), provider="mistral"),
        ]
    )
    assert tokens(report) == {
        ("openai", "gpt-5.4-mini"): (1, *thought),
        ("openai", "gpt-5.4"): (1, *thought),
        ("openai", "text-embedding-3-small"): (1, 7, 0, 0, 0, 0),
        ("anthropic", "claude-sonnet-5-5"): (2, 15, 1375, 1375, 28, 0),
        ("gemini", "gemini-3.8-flash"): (1, *thought),
        ("groq", "openai/gpt-oss-120b"): (1, *thought),
        ("openrouter", "gpt-5.4-mini"): (1, *thought),
        ("mistral", "magistral-medium-latest"): (1, 105, 1280, 0, 78, 0),
    }
    assert (report.lines.responses, report.lines.without_id, report.lines.unread) == (9, 1, 0)


def test_each_customer_has_a_bill_of_their_own_with_the_free_threshold_of_their_own() -> None:
    lines = [
        line(chat(300_000, 100_000, key="c-1"), customer_id="cus_ada"),
        line(chat(300_000, key="c-2"), customer_id="cus_bo"),
        line({**chat(50_000, key="c-3"), "customer_id": "cus_bo"}),
        line(chat(100_000, key="c-4")),
    ]
    report = audit(lines)
    assert {customer: sums["input_tokens"] for customer, sums in report.customers.items()} == {
        "cus_ada": 300_000,
        "cus_bo": 350_000,
        "": 100_000,
    }
    # 200,000 x 0.0003 + 100,000 x 0.0015 cents; 250,000 x 0.0003 cents; all of it free.
    assert {customer: bill.total for customer, bill in report.bills.items()} == {"cus_ada": 210, "cus_bo": 75, "": 0}
    assert (report.total, report.currency) == (285, "USD")


def test_a_meter_of_one_model_bills_that_model_alone() -> None:
    assert audited(message(0, 0, 0, 100_000)).total == 150 + 100
    assert audited({**message(0, 0, 0, 100_000), "model": "claude-sonnet-5-5"}).total == 150


def test_prices_of_ones_own_make_the_bill() -> None:
    own = replace(BLUEPRINT, prices=(Price("LLM requests", Decimal(2)), Price("Output tokens", Decimal("0.5"))))
    report = audit([line(chat(9, 10))], own)
    assert report.total == 2 + 5
    for wrong in (api_gateway.BLUEPRINT, replace(BLUEPRINT, prices=())):
        with pytest.raises(ConfigurationError, match="cannot price a log of tokens: give it an event with input_tok"):
            audit([], wrong)


# Where naive counting differs. All by hand, at 0.0003 cents a token of input over 100,000, 0.00003 cached, 0.000375
# written, 0.0015 of output and of reasoning.


def test_reasoning_added_to_the_output_that_includes_it_is_billed_twice() -> None:
    report = audited(chat(100_000, 300_000, reasoning=200_000))
    assert report.total == 150 + 300
    assert found(report) == {"reasoning_twice": (1, 300_000, 500_000, 450 + 300)}


def test_a_prompt_at_the_input_price_ignores_what_was_read_from_a_cache() -> None:
    report = audited(chat(1_100_000, cached=600_000))
    assert report.total == 120 + 18
    assert found(report) == {"full_price": (1, 500_000, 1_100_000, 300)}


def test_the_input_of_anthropic_alone_leaves_out_its_caches() -> None:
    report = audited(message(300_000, 1_000_000, 400_000))
    assert report.total == 60 + 30 + 150
    assert found(report) == {"input_alone": (1, 1_700_000, 300_000, 60)}


def test_the_candidates_of_gemini_alone_leave_out_its_thoughts() -> None:
    report = audited(generated(100_000, candidatesTokenCount=100_000, thoughtsTokenCount=200_000))
    assert report.total == 150 + 300
    assert found(report) == {"output_alone": (1, 300_000, 100_000, 150)}


def test_the_prompt_of_gemini_alone_leaves_out_the_results_of_its_tools() -> None:
    report = audited(
        generated(200_000, cachedContentTokenCount=100_000, toolUsePromptTokenCount=100_000, candidatesTokenCount=0)
    )
    assert report.total == 30 + 3
    assert found(report) == {
        "prompt_alone": (1, 300_000, 200_000, 0 + 3),
        "full_price": (1, 200_000, 300_000, 60),
    }


def test_a_response_that_is_logged_three_times_counts_once() -> None:
    report = audited(*[chat(100_000, 100_000)] * 3)
    assert report.total == 150
    assert found(report) == {"repeated": (2, 0, 400_000, 60 + 450)}
    assert (report.lines.responses, report.lines.repeated, report.lines.first_repeated) == (1, 2, [2, 3])


def test_reasoning_that_a_provider_counts_beside_the_output_is_not_said_to_be_twice() -> None:
    of_xai = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22}
    report = audited({"id": "x", "usage": of_xai | {"completion_tokens_details": {"reasoning_tokens": 7}}})
    assert found(report) == {"output_alone": (1, 12, 5, 0)}


def test_the_stand_ins_show_each_way_that_their_providers_allow(providers: Providers) -> None:
    tools: Any = {"tools": [{"googleSearch": {}}]}
    asked = {
        "openai": providers.ask(f"openai/v1/{CHATS}", CHAT),
        "responses": providers.ask("openai/v1/responses", RESPOND),
        "anthropic": providers.ask(MESSAGES, CLAUDE),
        "gemini": providers.ask(GENERATE.format("gemini-3.8-flash"), FLASH | tools),
        "mistral": providers.ask(f"mistral/v1/{CHATS}", MAGISTRAL),
        "plain": providers.ask(f"openai/v1/{CHATS}", {"model": "gpt-4o", "messages": TALK[3:]}),
    }
    ways = {name: {key: one[:3] for key, one in found(audited(response)).items()} for name, response in asked.items()}
    twice, whole = {"reasoning_twice": (1, 78, 142)}, {"full_price": (1, 105, 1385)}
    assert ways["openai"] == ways["responses"] == twice | whole
    assert ways["anthropic"] == {"input_alone": (1, 1385, 10)}
    prompt = asked["gemini"]["usageMetadata"]["promptTokenCount"]
    fresh = prompt + 32 - asked["gemini"]["usageMetadata"]["cachedContentTokenCount"]
    assert ways["gemini"] == {
        "output_alone": (1, 78, 14),
        "prompt_alone": (1, prompt + 32, prompt),
        "full_price": (1, fresh, prompt + 32),
    }
    assert (ways["mistral"], ways["plain"]) == (whole, {})


# Lines that cannot be read


GOOD = line(chat(7, 3))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"no json", "no JSON: Expecting value (character 1)"),
        (GOOD[:30], "no JSON: Unterminated string starting at (character 25)"),
        (b"\xff", "no UTF-8"),
        (b"[" * 100_000, "no JSON: "),
        (b"[1]", "JSON, but no object"),
        (b'{"usage": {"prompt_tokens": NaN}}', "no JSON: NaN is no number of it"),
        (b'{"a": 1}', "no response of a provider"),
        (b'{"id": "c-1", "model": "gpt-5.4-mini", "usage": null}', "it has no usage"),
        (line(chat(-1)), "usage.prompt_tokens is -1, not a count"),
        (line({"usage": {"prompt_tokens": "12"}}), 'usage.prompt_tokens is "12", not a count'),
        (line({"usage": {"prompt_tokens": 1.5}}), "usage.prompt_tokens is 1.5, not a count"),
        (line({"usage": {"prompt_tokens": 1, "completion_tokens": None}}), "usage has no count of the output"),
        (line({"usage": {"prompt_tokens": None}}), "usage has no count of the input"),
        (line(chat(10, cached=11)), "11 tokens of cached input are more than the 10 that they are part of"),
        (line(chat(1), customer_id=7), "customer_id is 7, not a text"),
        (line(chat(1), provider=["groq"]), "provider is ['groq'], not a text"),
        (line([chat(1)], customer_id="cus_ada"), "response: JSON, but no object"),
        (line("{", customer_id="cus_ada"), "response: no JSON: Expecting property name"),
        (line({"type": "message_start", "message": message(9, 0, 0, 1)}), "a piece of a stream, not its end"),
        (line({"type": "message_delta", "usage": {"input_tokens": 9, "output_tokens": 5}}), "a piece of a stream"),
        (line(generated(9) | {"candidates": [{"content": {}}]}), "a piece of a stream, not its end"),
        (line(chat(7, 4)), 'its id "c-1" came before with other numbers, or for another customer'),
        (line(chat(7, 3), customer_id="cus_ada"), 'its id "c-1" came before with other numbers, or for another cus'),
    ],
)
def test_a_bad_line_is_named_and_in_no_sum(bad: bytes, reason: str) -> None:
    report = audit([GOOD, b"\n", bad, line(chat(5, 1, key="c-2"))])
    (unread,) = report.lines.first_unread
    assert unread.line == 3
    assert unread.reason.startswith(reason)
    assert tokens(report) == {("openai", "gpt-5.4-mini"): (2, 12, 0, 0, 4, 0)}
    assert (report.lines.total, report.lines.responses, report.lines.unread) == (3, 2, 1)


@pytest.mark.parametrize("how", ["negative", "null", "string", ""])
def test_usage_that_a_stand_in_spoils_is_in_no_sum(providers: Providers, how: str) -> None:
    bad = providers.ask(f"openai/v1/{CHATS}", CHAT, f"bad_usage={how}" if how else "no_usage")
    report = audited(bad)
    assert (report.lines.unread, report.models, report.total) == (1, {}, 0)


def test_of_very_many_bad_lines_the_first_are_named_and_all_are_counted() -> None:
    report = audit([b"{"] * 1000)
    assert report.lines.unread == 1000
    assert report.lines.first_unread == [Unread(n + 1, report.lines.first_unread[0].reason) for n in range(MOST_NAMED)]


def test_the_error_of_a_provider_used_nothing_and_is_no_bad_line(providers: Providers) -> None:
    errors = [
        providers.ask(path, CLAUDE, "error=429")
        for path in (f"openai/v1/{CHATS}", MESSAGES, GENERATE.format("gemini-3.8-flash"))
    ]
    failed = {"id": "resp_1", "object": "response", "status": "failed", "error": {"code": "x"}, "usage": None}
    report = audit([*map(line, errors), line(failed), line(None, customer_id="cus_ada", error="timeout")])
    assert (report.lines.errors, report.lines.unread, report.models) == (5, 0, {})


def test_a_log_as_tools_write_it_is_read() -> None:
    windows = b"\xef\xbb\xbf" + GOOD + b"\r\n"
    event = {"type": "response.completed", "response": chat(1, key="c-2")}
    nested = line(json.dumps(chat(1, key="c-3")), customer_id=None, provider=None, at="2026-11-24")
    bare = line({"prompt_tokens": 1, "completion_tokens": 0})
    report = audit([windows, b"  \n", line(event), nested, bare, bare])
    assert (report.lines.total, report.lines.unread, report.lines.without_id) == (5, 0, 2)
    assert report.models["openai", "gpt-5.4-mini"]["input_tokens"] == 9
    assert report.models["openai", "unknown"]["input_tokens"] == 2


# Whatever the log


counts = st.integers(0, 10**7)
customers = st.sampled_from([None, "cus_ada", "cus_bo"])


@st.composite
def responses(draw: st.DrawFn) -> tuple[str, Any]:
    """A response with an id of its own, and the same numbers whenever it is repeated."""
    fresh, read, written, output, thought = (draw(counts) for _ in range(5))
    key = draw(st.uuids()).hex
    shape = draw(st.sampled_from(["chat", "message", "generated"]))
    if shape == "chat":
        return key, chat(fresh + read, output + thought, key=key, cached=read, reasoning=thought)
    if shape == "message":
        return key, message(fresh, read, written, output, key=key)
    counted = {"cachedContentTokenCount": read, "candidatesTokenCount": output, "thoughtsTokenCount": thought}
    return key, generated(fresh + read, key=key, toolUsePromptTokenCount=written, **counted)


@given(st.lists(st.tuples(responses(), customers, st.integers(1, 3)), max_size=8), st.randoms())
def test_the_buckets_of_a_log_are_the_sums_of_its_responses_in_any_order(asked: Any, random: Any) -> None:
    lines = [line(response, customer_id=customer) for (_, response), customer, times in asked for _ in range(times)]
    report = audit(lines)
    usages = [usage_of(response) for (_, response), _, _ in asked]
    for name in BUCKETS:
        whole = sum(getattr(usage, name) for usage in usages)
        assert whole == sum(sums[name] for sums in report.models.values())
        assert whole == sum(sums[name] for sums in report.customers.values())
    assert report.lines.responses == len(usages)
    assert report.total == sum(bill.total for bill in report.bills.values())
    random.shuffle(lines)
    again = audit(lines)
    assert (again.models, again.customers, again.bills) == (report.models, report.customers, report.bills)
    assert again.differences == report.differences


# The command


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of the page, without the line that was cut off."""
    path = tmp_path_factory.mktemp("log") / "responses.jsonl"
    lines = command_output.log().splitlines()
    path.write_text("\n".join(lines[:-1]))
    return path


def test_the_help_shows_examples_and_the_keys_of_a_wrapper() -> None:
    shown = meterprint("llm", "audit", "--help").stdout
    assert re.search(r"Examples:\s+meterprint llm audit", shown), shown
    assert '{"customer_id": "cus_ada", "provider": "groq", "response": {...}}' in shown
    assert "\x1b" not in shown


def test_the_command_shows_tokens_bills_and_differences(log: Path) -> None:
    done = meterprint("llm", "audit", str(log))
    assert (done.returncode, done.stderr) == (0, "")
    assert "15 lines: 14 responses counted\n  1 repeated and not counted again (line 15)\n" in done.stdout
    # Six conversations of 110,010 tokens whose whole blocks of 128 are cached, 14 tokens said and 512 thought.
    assert re.search(r"openai gpt-5.4-mini +6 +348 +659,712 +0 +84 +3,072 *\n", done.stdout)
    assert "  Cached input tokens        0.20 USD  659,712 x 0.00003 cents = 0.20 USD" in done.stdout
    assert re.search(r"reasoning added to the output +6 +3,156 +6,228 +0.90 USD +0.95 USD *\n", done.stdout)
    assert "could not be read" not in done.stdout


def test_what_the_page_shows_names_the_line_that_was_cut_off() -> None:
    script = {command_output.script("llm_audit/audit"): 1}
    (shown,) = command_output.run(create_app(MemoryStore()), script, {command_output.LOG: command_output.log()})
    assert re.search(r"  line 16: no JSON: .*\nerror: 1 line of 16 could not be read, and no sum has them\n$", shown)


def test_json_has_the_same_figures_and_bad_lines_give_status_1(log: Path) -> None:
    text = log.read_text() + "\n{\n"
    done = command(text, "--json")
    assert done.returncode == 1
    assert done.stderr == "error: 1 line of 16 could not be read, and no sum has them\n"
    report = json.loads(done.stdout)
    assert report["lines"]["first_unread"][0]["line"] == 16
    ada, bo = report["customers"]
    assert (ada["customer_id"], ada["reasoning_tokens"], ada["invoice"]["total"]) == ("cus_ada", 3072, 25)
    assert report["total"] == ada["invoice"]["total"] + bo["invoice"]["total"] == 90
    assert report["differences"][0] == {
        "way": "reasoning_twice",
        "responses": 6,
        "right_tokens": 3156,
        "naive_tokens": 6228,
        "naive_total": 95,
    }


@pytest.mark.parametrize("text", ["", "no json\n"])
def test_a_log_of_which_nothing_can_be_read_gives_status_1_and_says_what_it_should_be(text: str) -> None:
    done = command(text)
    assert done.returncode == 1
    assert "the standard input has no response that can be read: give one JSON object a line" in done.stderr
    assert ("line 1: no JSON" in done.stdout) == bool(text)


def test_a_file_that_cannot_be_read_is_named_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    done = meterprint("llm", "audit", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    fix = "name a file of JSON Lines, or - for the standard input"
    assert done.stderr == f"error: cannot read {path} (No such file or directory): {fix}\n"


def test_of_many_customers_the_largest_are_shown_and_the_others_summed_up() -> None:
    lines = [line(chat(0, 10_000 * n, key=f"c-{n}"), customer_id=f"cus_{n:02}") for n in range(1, 14)]
    shown = command(b"\n".join(lines).decode()).stdout
    assert re.search(r"cus_04 +1 +0 +0 +0 +40,000 +0 *\n3 others +3 +0 +0 +0 +60,000 +0 *\n", shown)
    assert re.search(r"3 others +0.90 USD\s+Total +13.65 USD", shown)
    assert "cus_03" not in shown


def test_what_is_not_counted_is_summed_up_however_much_it_is() -> None:
    lines = [*[GOOD] * 8, b'{"error": {"code": 429}}', line({"prompt_tokens": 1}), *[b"{"] * (MOST_NAMED + 5)]
    shown = command(b"\n".join(lines).decode()).stdout
    assert "7 repeated and not counted again (line 2, 3, 4, 5, 6, ...)\n" in shown
    assert "1 error of a provider, which used nothing\n" in shown
    assert "1 without an id, counted as often as logged\n" in shown
    assert shown.endswith("  and 5 more\n")


def test_names_in_a_log_do_nothing_to_a_terminal() -> None:
    named = line({**chat(1), "model": "\x1b[31mred[/b]"}, customer_id="\ud800\x07cus")
    shown = command(named.decode()).stdout
    assert "\ufffd[31mred[/b]" in shown
    assert "\ufffd\ufffdcus" in shown
    assert "\x1b" not in shown


def test_on_a_narrow_terminal_every_number_stays_whole_and_progress_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"\n".join(line(chat(10**6, 10**6, key=f"c-{n}", cached=10**5)) for n in range(10_001)))
    shown = on_a_terminal("llm", "audit", str(path), environment={"COLUMNS": "60"})
    assert "10,000 lines read (100%) ..." in shown
    report = shown[shown.rindex("\x1b[2K") :]
    assert "lines read" not in report
    for number in ("9,000,900,000", "1,000,100,000", "10,001,000,000"):
        assert number in report
