// Meter a streamed chat completion of OpenAI.

import OpenAI from "openai";
import { Recorder } from "../../metering.ts";

const recorder = Recorder.fromEnv();
const client = new OpenAI();

try {
  for await (const text of answer("cus_ada", "Why is the sky blue?")) process.stdout.write(text);
  console.log();
} finally {
  process.exitCode = (await recorder.close()) ? 0 : 1;
}

// The words as they come. A stream that breaks off, or that the caller leaves, is billed for what was received.
async function* answer(customer_id: string, question: string): AsyncGenerator<string> {
  const stream = await client.chat.completions.create({
    model: "gpt-5.4-mini",
    messages: [{ role: "user", content: question }],
    stream: true,
    stream_options: { include_usage: true }, // without this, OpenAI sends no usage
  });
  let last: OpenAI.ChatCompletionChunk | undefined;
  let usage: OpenAI.CompletionUsage | undefined;
  let said = "";
  try {
    for await (const chunk of stream) {
      last = chunk;
      usage = chunk.usage ?? usage; // in the last chunk, which has no choice
      const text = chunk.choices[0]?.delta.content ?? "";
      said += text;
      yield text;
    }
  } finally {
    if (last) {
      const tokens = tokensOf(usage ?? { prompt_tokens: estimateOf(question), completion_tokens: estimateOf(said) });
      const metadata = { provider: "openai", model: last.model, operation: "chat", ...tokens, estimated: !usage };
      recorder.record({ event_id: `openai:${last.id}`, customer_id, event_name: "llm.usage", metadata });
    }
  }
}

// About four bytes are a token.
function estimateOf(text: string): number {
  return Math.ceil(Buffer.byteLength(text) / 4);
}

// OpenAI's prompt includes what its cache read and wrote, its completion the reasoning: each token is counted once.
function tokensOf(usage: Partial<OpenAI.CompletionUsage>) {
  const { prompt_tokens: prompt = 0, completion_tokens: completion = 0 } = usage;
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const written = usage.prompt_tokens_details?.cache_write_tokens ?? 0;
  const reasoning = usage.completion_tokens_details?.reasoning_tokens ?? 0;
  return {
    input_tokens: prompt - cached - written,
    cached_input_tokens: cached,
    cache_write_tokens: written,
    output_tokens: completion - reasoning,
    reasoning_tokens: reasoning,
    total_tokens: prompt + completion,
  };
}
