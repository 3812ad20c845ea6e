// Meter a chat completion of OpenAI.

import OpenAI from "openai";
import { Recorder } from "../../metering.ts";

const recorder = Recorder.fromEnv();
const client = new OpenAI();

const completion = await client.chat.completions.create({
  model: "gpt-5.4-mini",
  messages: [{ role: "user", content: "Why is the sky blue?" }],
});
recorder.record({
  event_id: `openai:${completion.id}`, // the same on every try: each id is billed once
  customer_id: "cus_ada",
  event_name: "llm.usage",
  metadata: {
    provider: "openai",
    model: completion.model,
    operation: "chat",
    ...tokensOf(completion.usage),
    feature: "support_chat",
  },
});
console.log(completion.choices[0]?.message.content);

process.exitCode = (await recorder.close()) ? 0 : 1;

// OpenAI's prompt includes what its cache read and wrote, its completion the reasoning: each token is counted once.
function tokensOf(usage: OpenAI.CompletionUsage | undefined) {
  const { prompt_tokens: prompt = 0, completion_tokens: completion = 0 } = usage ?? {};
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
  const written = usage?.prompt_tokens_details?.cache_write_tokens ?? 0;
  const reasoning = usage?.completion_tokens_details?.reasoning_tokens ?? 0;
  return {
    input_tokens: prompt - cached - written,
    cached_input_tokens: cached,
    cache_write_tokens: written,
    output_tokens: completion - reasoning,
    reasoning_tokens: reasoning,
    total_tokens: prompt + completion,
    estimated: usage === undefined,
  };
}
