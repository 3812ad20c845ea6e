// Meter every request of an Express application.

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import express, { type NextFunction, type Request, type Response } from "express";

const CUSTOMERS = new Map([["key-of-ada", "cus_ada"]]); // your key store

const missing = ["METERING_API_URL", "METERING_API_KEY"].filter((name) => !process.env[name]).join(" and ");
if (missing) {
  console.error(`${missing} not set: \`meterprint up\` starts a local metering API and prints both`);
  process.exit(1);
}
const { METERING_API_URL: url = "", METERING_API_KEY: key } = process.env;

// Delivery, in the background: one request at a time takes all that waits, up to 1,000 events.

type UsageEvent = {
  event_id: string;
  customer_id: string;
  event_name: string;
  timestamp: string;
  metadata: Record<string, string | number | boolean>;
};

const waiting: UsageEvent[] = [];
let delivery: Promise<void> | undefined;

function record(event: UsageEvent): void {
  if (waiting.length >= 100_000) {
    console.error(`event ${event.event_id} dropped: ${waiting.length} events wait already`);
    return;
  }
  waiting.push(event);
  delivery ??= deliver();
}

async function deliver(): Promise<void> {
  let size = 1_000;
  for (let failures = 0; waiting.length > 0; ) {
    const batch = waiting.slice(0, size);
    const { status, text } = await post(batch);
    const refused = [400, 413, 422].includes(status);
    if (refused && batch.length > 1) {
      size = Math.ceil(batch.length / 2); // one bad event refuses its whole batch: find it
    } else if (refused || (status === 200 && text.includes('"ingested_count"'))) {
      if (refused) console.error(`event ${batch[0]?.event_id} refused: ${text}`);
      waiting.splice(0, batch.length);
      size = 1_000;
      failures = 0;
    } else {
      // The same events, with the same ids: what was stored already is not billed twice.
      size = batch.length;
      console.error(`${size} events not delivered, trying again: ${status || "no answer:"} ${text}`);
      await sleep(Math.random() * Math.min(500 * 2 ** failures, 5_000));
      failures += 1;
    }
  }
  delivery = undefined;
}

async function post(events: UsageEvent[]): Promise<{ status: number; text: string }> {
  try {
    const answer = await fetch(`${url.replace(/\/+$/, "")}/events/ingest`, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify({ events }),
      signal: AbortSignal.timeout(10_000),
    });
    return { status: answer.status, text: (await answer.text()).replace(/\s+/g, " ") };
  } catch (error) {
    const { message, cause } = error as Error & { cause?: NodeJS.ErrnoException };
    return { status: 0, text: cause?.code ?? message };
  }
}

// At the end of the application, when its server has closed: whether all was delivered, after 10 s at most.
async function flush(): Promise<boolean> {
  await Promise.race([delivery, sleep(10_000, undefined, { ref: false })]);
  if (waiting.length > 0) console.error(`${waiting.length} events lost: the metering API did not take them in time`);
  return waiting.length === 0;
}

// Measuring: one event for each request of a customer, when its response is complete or broken off.

function usage(request: Request, response: Response, next: NextFunction): void {
  const start = performance.now();
  let received = 0;
  let sent = 0;
  const push = request.push.bind(request);
  request.push = (chunk: Buffer | null, ...rest) => {
    received += chunk?.length ?? 0;
    return push(chunk, ...rest);
  };
  for (const name of ["write", "end"] as const) {
    const original = response[name].bind(response) as (...args: unknown[]) => never;
    response[name] = (chunk?: unknown, ...rest: unknown[]) => {
      if (typeof chunk === "string") sent += Buffer.byteLength(chunk, rest[0] as BufferEncoding);
      if (chunk instanceof Uint8Array) sent += chunk.byteLength;
      return original(chunk, ...rest);
    };
  }
  response.on("close", () => {
    if (!response.locals.customerId) return;
    record({
      event_id: randomUUID(),
      customer_id: response.locals.customerId,
      event_name: "api.request",
      timestamp: new Date().toISOString(),
      metadata: {
        endpoint: request.route ? (request.baseUrl + request.route.path).replace(/:(\w+)/g, "{$1}") : "(unmatched)",
        method: request.method,
        status_code: response.headersSent ? response.statusCode : 500,
        duration_ms: performance.now() - start,
        request_bytes: Number(request.headers["content-length"] ?? received),
        response_bytes: sent,
      },
    });
  });
  next();
}

// The customer comes from the verified key, never from what the request claims.
function authenticate(request: Request, response: Response, next: NextFunction): void {
  response.locals.customerId = CUSTOMERS.get(request.get("authorization")?.replace(/^Bearer /, "") ?? "");
  if (response.locals.customerId) next();
  else response.status(401).json({ detail: "unknown API key" });
}

const app = express();
app.use(usage);
app.get("/v1/orders/:order_id", authenticate, (request, response) => {
  response.json({ order_id: request.params.order_id });
});
app.post("/v1/orders", authenticate, express.json(), (_request, response) => {
  response.status(201).json({ order_id: "8" });
});
app.get("/health", (_request, response) => {
  response.json({ status: "ok" });
});

// Three requests of a customer, and one of a stranger.

const server = app.listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address() as AddressInfo;

async function call(method: string, path: string, headers: Record<string, string>, body?: string): Promise<void> {
  const signal = AbortSignal.timeout(10_000);
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, body, signal });
  await response.text();
  console.log(method, path, response.status);
}

const ada = { Authorization: "Bearer key-of-ada" };
await call("GET", "/v1/orders/7", ada);
await call("POST", "/v1/orders", { ...ada, "Content-Type": "application/json" }, '{"item":"book"}');
await call("GET", "/v1/orders/9", {});
await call("GET", "/health", ada);

server.close();
await once(server, "close");
process.exit((await flush()) ? 0 : 1);
