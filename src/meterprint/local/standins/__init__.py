"""Stand-ins for LLM providers: the real SDKs talk to them over HTTP, and need no account.

Mount the routes of `standins()` under a path, here `/standins`, and give each SDK its address:

| provider | base URL | endpoints |
|---|---|---|
| OpenAI | `/standins/openai/v1` | chat/completions, responses, embeddings, models |
| Groq | `/standins/groq`; for OpenAI's SDK `/standins/groq/openai/v1` | chat/completions, embeddings, models |
| OpenRouter | `/standins/openrouter/v1` | chat/completions, embeddings, models |
| Mistral | `/standins/mistral`; for OpenAI's SDK `/standins/mistral/v1` | chat/completions, embeddings, models |
| Anthropic | `/standins/anthropic` | v1/messages, v1/messages/count_tokens |
| Gemini | `/standins/gemini` | v1beta/models/{model}: generateContent, streamGenerateContent, and so on |

Any key that is not empty is good, and any model. Nothing is kept from one request to the next but how often an error
that was asked for has come, so the same request always has the same answer and the same usage; ids are new each time.

The rules of the numbers
------------------------
**Tokens** of a text: its characters by 4, rounded up, at least 1. A **prompt** is one text: the tools as compact JSON
(each the whole object of the request, without its mark for caching), the system's text, then the messages: their texts,
the names and compact JSON arguments of tool calls, the results of tools. Thoughts of earlier turns count nothing, an
attachment (image, audio, file) as 85 tokens.

**The answer** is `This is the stand-in's answer to: ` and the last text of a user that is not blank: its white space as
single spaces, its first 100 characters. If tools have said something since the model's last turn, ` The tool said: `
and the last of that, cut in the same way, follow. Choices after the first (`n`, `candidateCount`) end with ` (2)`,
` (3)`. With a JSON schema, or in JSON mode, the answer is an example in JSON instead. A request with functions that
neither forbids their use nor brings a result since the model's last turn gets one call: of the function that it
requires, else of the first, with an example of its schema. The tokens of a call are those of its name and compact JSON
arguments as one text. A limit (`max_tokens` and its kin) ends a text after four times as many characters, and shows in
the finish reason. A stream has an event for each word.

**Reasoning**: 64 tokens for each choice. The model thinks if its name, at the start or after a slash, begins with `o`
and a digit, `gpt-5` to `gpt-9`, `gpt-oss`, `gemini-2.5`, `gemini-3` to `gemini-9`, or `magistral`, or if `-r1`,
`thinking` or `reasoning` is in it. Anthropic's thinks where `thinking` is enabled or adaptive, or `thinking` is in its
name. An effort or level, if there is one, decides: none 0, minimal 16, low 32, medium 64, high 128, xhigh 256, max 512.
A thinking budget is the upper bound (0: none; -1: no bound).

**Cached input.** What stood before the model's last turn was sent before. OpenAI's shape and Gemini: if that has 1,024
tokens or more, its whole blocks of 128 tokens are read from the cache; `gpt-5.6` to `gpt-9` also write the other whole
blocks of a prompt of 1,024 tokens or more. Where parts are marked (`cache_control`; `prompt_cache_breakpoint`), only
marks count, and Anthropic needs them: the prompt up to the last mark is cached, to the token, if it has 1,024 or more;
of that, what is up to the last mark that was sent before is read, if it has 1,024 or more; the rest is written.
`cache_control` beside `messages` marks the end of the prompt. The last mark's lifetime is that of all that is written.
Gemini's `cachedContent` adds 2,048 tokens to the prompt, and reads just these.

**Server tools.** Gemini: 32 tokens of toolUsePromptTokenCount for each of googleSearch, codeExecution and urlContext.
Anthropic: one request in `server_tool_use` for each web_search and web_fetch.

**Cost** at OpenRouter, in millionths: 1 for a token of the prompt, 2 for one of the completion.

How each provider reports them
------------------------------
Of `input` (neither read nor written), `cached`, `written`, `output` (what is said), `reasoning`, which never overlap:

| provider | reports |
|---|---|
| OpenAI chat, OpenRouter | prompt_tokens = input + cached + written, completion_tokens = output + reasoning, details |
| OpenAI responses | the same as input_tokens and output_tokens |
| Groq | as OpenAI chat; a detail only if it is not 0, and none of `written` |
| Mistral | as OpenAI chat, with no details but cached_tokens |
| embeddings | prompt_tokens = input, each text rounded up by itself |
| Anthropic | input_tokens = input, cache_read_ and cache_creation_input_tokens, output_tokens = output + reasoning |
| Gemini | promptTokenCount = input + cached, candidatesTokenCount = output, thoughtsTokenCount = reasoning |

The usage of a stream comes, from OpenAI, if `include_usage` asks for it, in a last chunk without choices; from Groq, in
`x_groq` of the last chunk with a choice (and as from OpenAI, if asked); from Mistral, in the last chunk; from
OpenRouter, in a last chunk, which has a choice; from OpenAI's responses, in the last event; from Anthropic, in
`message_start` with 1 output token, and in `message_delta` with all; from Gemini, in every chunk, cumulative.

On request
----------
The header `X-Standin` has words apart by semicolons, such as `error=429; times=2`:

| word | what comes of it |
|---|---|
| `error=429` | this status, 400 to 599, in the provider's shape; 429, 503 and 529 with retry-after and retry-after-ms |
| `retry_after=0.01` | the seconds in these |
| `after=3` | with `error`: a stream begins well, and has the provider's error event after so many events |
| `cut=3` | the connection breaks after so many events; 0: before the first byte. An answer in one piece breaks midway |
| `times=2` | with `error` and `cut`: so many requests in a row, then one goes well, and so on. Without it: each |
| `key=abc` | with `times`: what tells requests apart; without it, their path, API key and body |
| `slow=50` | so many milliseconds before the answer, and before each further event of a stream |
| `words=1000` | the answer has so many words: its own, over and over |
| `warm` | the cache has the whole prompt, or what is up to its last mark, whatever was sent before |
| `no_usage` | the usage is missing (OpenAI's responses: null) |
| `bad_usage=negative` | each number in the usage is negative (for 0: -1); `null`: null; `string`: a string |
| `gzip` | the body is compressed, if the client takes that |
"""

from __future__ import annotations

from starlette.routing import BaseRoute

from .anthropic import Anthropic
from .behaviour import HEADER, Faults
from .gemini import Gemini
from .groq import Groq
from .mistral import Mistral
from .openai import OpenAI
from .openrouter import OpenRouter
from .prompt import tokens

__all__ = ["HEADER", "standins", "tokens"]


def standins() -> list[BaseRoute]:
    """The stand-ins of all providers, each mounted under its name."""
    faults = Faults()
    providers = (OpenAI, Groq, OpenRouter, Mistral, Anthropic, Gemini)
    return [provider(faults).mount() for provider in providers]
