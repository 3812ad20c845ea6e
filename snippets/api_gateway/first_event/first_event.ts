// Meter one API request.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const missing = ["METERING_API_URL", "METERING_API_KEY"].filter((name) => !process.env[name]).join(" and ");
if (missing) {
  console.error(`${missing} not set: \`meterprint up\` starts a local metering API and prints both`);
  process.exit(1);
}
const { METERING_API_URL: url = "", METERING_API_KEY: key } = process.env;

const event = {
  event_id: randomUUID(), // made once, the same on every try: each id is billed once
  customer_id: "cus_ada",
  event_name: "api.request",
  timestamp: new Date().toISOString(),
  metadata: {
    endpoint: "/v1/orders/{order_id}",
    method: "GET",
    status_code: 200,
    duration_ms: 12.5,
    request_bytes: 0,
    response_bytes: 2048,
  },
};

type Answer = { status: number; text: string; retryAfter: number };

async function post(): Promise<Answer> {
  try {
    const answer = await fetch(`${url.replace(/\/+$/, "")}/events/ingest`, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify({ events: [event] }),
      signal: AbortSignal.timeout(10_000),
    });
    const retryAfter = Number(answer.headers.get("Retry-After") ?? NaN);
    return { status: answer.status, text: await answer.text(), retryAfter };
  } catch (error) {
    const { message, cause } = error as Error & { cause?: NodeJS.ErrnoException };
    return { status: 0, text: `no answer: ${cause?.code ?? message}`, retryAfter: NaN };
  }
}

const isPassing = ({ status }: Answer): boolean => [0, 408, 425, 429].includes(status) || status >= 500;

function ingestedCount({ status, text }: Answer): unknown {
  try {
    return status === 200 ? JSON.parse(text).ingested_count : undefined;
  } catch {
    return undefined; // a page in place of a metering API
  }
}

let answer = await post();
for (let attempt = 0; attempt < 3 && isPassing(answer); attempt += 1) {
  const seconds = answer.retryAfter >= 0 ? Math.min(answer.retryAfter, 30) : Math.random() * 0.5 * 2 ** attempt;
  await sleep(seconds * 1_000);
  answer = await post();
}

const count = ingestedCount(answer);
if (typeof count !== "number") {
  console.error(`not metered: ${answer.status || ""} ${answer.text}`.replace(/\s+/g, " "));
  process.exit(1);
}
console.log(`${count} event ingested`);
