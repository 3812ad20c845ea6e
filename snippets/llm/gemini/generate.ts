// Meter an answer of Gemini.

import { GoogleGenAI, type GenerateContentResponseUsageMetadata } from "@google/genai";
import { Recorder } from "../../metering.ts";

const recorder = Recorder.fromEnv();
const client = new GoogleGenAI({});

const model = "gemini-3.8-flash";
const response = await client.models.generateContent({ model, contents: "Why is the sky blue?" });
recorder.record({
  // The same on every try: each id is billed once.
  event_id: response.responseId ? `gemini:${response.responseId}` : undefined,
  customer_id: "cus_ada",
  event_name: "llm.usage",
  metadata: {
    provider: "gemini",
    model: response.modelVersion ?? model,
    operation: "chat",
    ...tokensOf(response.usageMetadata),
  },
});
console.log(response.text);

process.exitCode = (await recorder.close()) ? 0 : 1;

// Gemini's prompt includes what was cached, but not what its tools gave it; its candidates are without the thoughts.
function tokensOf(usage: GenerateContentResponseUsageMetadata | undefined) {
  const cached = usage?.cachedContentTokenCount ?? 0;
  const input = (usage?.promptTokenCount ?? 0) - cached + (usage?.toolUsePromptTokenCount ?? 0);
  const output = usage?.candidatesTokenCount ?? 0;
  const reasoning = usage?.thoughtsTokenCount ?? 0;
  return {
    input_tokens: input,
    cached_input_tokens: cached,
    cache_write_tokens: 0,
    output_tokens: output,
    reasoning_tokens: reasoning,
    total_tokens: input + cached + output + reasoning,
    estimated: usage === undefined,
  };
}
