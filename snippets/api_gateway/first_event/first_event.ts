// Meter one API request.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

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

async function ingest(url: string, key: string, body: string): Promise<{ ingested_count: number }> {
  for (let attempt = 0; ; attempt += 1) {
    const answer = await fetch(`${url}/events/ingest`, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body,
      signal: AbortSignal.timeout(10_000),
    }).catch((error: Error) => error);

    if (answer instanceof Response && answer.ok) return (await answer.json()) as { ingested_count: number };
    const passing = answer instanceof Error || answer.status === 429 || answer.status >= 500;
    if (!passing || attempt === 3) {
      if (answer instanceof Error) throw new Error(`no answer: ${answer.cause ?? answer.message}`);
      throw new Error(`${answer.status} ${await answer.text()}`);
    }
    await sleep(Math.random() * 500 * 2 ** attempt);
  }
}

const { METERING_API_URL: url, METERING_API_KEY: key } = process.env;
try {
  if (!url || !key) throw new Error("set METERING_API_URL and METERING_API_KEY: `meterprint up` prints both");
  const { ingested_count } = await ingest(url, key, JSON.stringify({ events: [event] }));
  console.log(`${ingested_count} event ingested`);
} catch (error) {
  console.error(`not metered: ${(error as Error).message}`);
  process.exitCode = 1;
}
