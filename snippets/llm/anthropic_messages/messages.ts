// Meter a conversation with Anthropic: what is written to the prompt cache, and what is read from it.

import Anthropic from "@anthropic-ai/sdk";
import { Recorder } from "../../metering.ts";

// Long enough for every model's cache: most take prompts from 1,024 tokens, some from 4,096.
const GUIDE: Anthropic.TextBlockParam = {
  type: "text",
  text: "Answer in one short sentence that a child understands. ".repeat(500),
  cache_control: { type: "ephemeral" },
};

const recorder = Recorder.fromEnv();
const client = new Anthropic();
const messages: Anthropic.MessageParam[] = [];

try {
  for (const question of ["Why is the sky blue?", "Why is the sunset red?"]) {
    messages.push({ role: "user", content: question });
    const answer = await client.messages.create({
      model: "claude-sonnet-5-5",
      max_tokens: 200,
      system: [GUIDE],
      messages,
    });
    recorder.record({
      event_id: `anthropic:${answer.id}`, // the same on every try: each id is billed once
      customer_id: "cus_ada",
      event_name: "llm.usage",
      metadata: { provider: "anthropic", model: answer.model, operation: "chat", ...tokensOf(answer.usage) },
    });
    messages.push({ role: "assistant", content: answer.content });
    console.log(answer.content.map((block) => (block.type === "text" ? block.text : "")).join(""));
  }
} finally {
  process.exitCode = (await recorder.close()) ? 0 : 1;
}

// Anthropic's input has neither what the cache read nor what it wrote; its output includes the reasoning.
function tokensOf(usage: Anthropic.Usage) {
  const cached = usage.cache_read_input_tokens ?? 0;
  const written = usage.cache_creation_input_tokens ?? 0;
  const reasoning = usage.output_tokens_details?.thinking_tokens ?? 0;
  return {
    input_tokens: usage.input_tokens,
    cached_input_tokens: cached,
    cache_write_tokens: written,
    output_tokens: usage.output_tokens - reasoning,
    reasoning_tokens: reasoning,
    total_tokens: usage.input_tokens + cached + written + usage.output_tokens,
    estimated: false,
  };
}
