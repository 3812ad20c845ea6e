// Meter every step of an agent built with the Vercel AI SDK.

import { openai } from "@ai-sdk/openai";
import { generateText, isStepCount, jsonSchema, tool, type LanguageModelUsage } from "ai";
import { Recorder } from "../../metering.ts";

const recorder = Recorder.fromEnv();

const orderStatus = tool({
  description: "Where an order is",
  inputSchema: jsonSchema<{ order_id: string }>({
    type: "object",
    properties: { order_id: { type: "string" } },
    required: ["order_id"],
    additionalProperties: false,
  }),
  execute: async () => "It leaves the warehouse today.",
});

try {
  const { text } = await generateText({
    model: openai("gpt-5.4-mini"),
    prompt: "Where is my order 7?",
    tools: { orderStatus },
    stopWhen: isStepCount(5),
    // After each call of the model, before its tools run: what fails later does not undo that it was used.
    onLanguageModelCallEnd: ({ responseId, modelId, usage }) =>
      recorder.record({
        event_id: `openai:${responseId}`, // the same on every try: each id is billed once
        customer_id: "cus_ada",
        event_name: "llm.usage",
        metadata: {
          provider: "openai",
          model: modelId,
          operation: "responses",
          ...tokensOf(usage),
          feature: "order_agent",
        },
      }),
  });
  console.log(text);
} finally {
  process.exitCode = (await recorder.close()) ? 0 : 1;
}

// The SDK's input includes what the cache read and wrote, its output the reasoning: each token is counted once.
function tokensOf({ inputTokens, inputTokenDetails, outputTokens, outputTokenDetails }: LanguageModelUsage) {
  const { cacheReadTokens: cached = 0, cacheWriteTokens: written = 0 } = inputTokenDetails;
  const { reasoningTokens: reasoning = 0 } = outputTokenDetails;
  const [input, output] = [inputTokens ?? 0, outputTokens ?? 0];
  return {
    input_tokens: input - cached - written,
    cached_input_tokens: cached,
    cache_write_tokens: written,
    output_tokens: output - reasoning,
    reasoning_tokens: reasoning,
    total_tokens: input + output,
    estimated: inputTokens === undefined || outputTokens === undefined,
  };
}
