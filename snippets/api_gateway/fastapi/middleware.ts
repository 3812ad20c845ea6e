// Meter every request of an Express application.

import { randomUUID } from "node:crypto";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import express, { type NextFunction, type Request, type Response } from "express";

const CUSTOMERS = new Map([["key-of-ada", "cus_ada"]]); // your key store

const { METERING_API_URL: url, METERING_API_KEY: key } = process.env;
if (!url || !key) {
  console.error("set METERING_API_URL and METERING_API_KEY: `meterprint up` prints both");
  process.exit(1);
}

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
  delivery ??= deliver().finally(() => (delivery = undefined));
}

async function deliver(): Promise<void> {
  let size = 1_000;
  for (let attempt = 0; waiting.length > 0; attempt += 1) {
    const batch = waiting.slice(0, size);
    const { status, text } = await send(batch);
    if (status === 200 || (isRefusal(status) && batch.length === 1)) {
      if (status !== 200) console.error(`event ${batch[0]?.event_id} refused: ${text}`);
      waiting.splice(0, batch.length);
      size = 1_000;
      attempt = -1;
    } else if (isRefusal(status)) {
      size = Math.ceil(batch.length / 2); // one bad event refuses its whole batch: find it
    } else {
      // The same events, with the same ids: what was stored already is not billed twice.
      console.error(`${batch.length} events not delivered, trying again: ${status} ${text}`);
      await sleep(Math.random() * Math.min(500 * 2 ** attempt, 30_000));
    }
  }
}

const isRefusal = (status: number): boolean => [400, 413, 422].includes(status);

async function send(batch: UsageEvent[]): Promise<{ status: number; text: string }> {
  try {
    const answer = await fetch(`${url}/events/ingest`, {
      method: "POST",
      headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
      body: JSON.stringify({ events: batch }),
      signal: AbortSignal.timeout(10_000),
    });
    return { status: answer.status, text: await answer.text() };
  } catch (error) {
    return { status: 0, text: (error as Error).message };
  }
}

// Measuring: one event for each request of a customer, when its response is complete or broken off.

function usage(request: Request, response: Response, next: NextFunction): void {
  const start = performance.now();
  let sent = 0;
  for (const name of ["write", "end"] as const) {
    const original = response[name].bind(response) as (...args: unknown[]) => never;
    response[name] = (chunk?: unknown, ...rest: unknown[]) => {
      if (typeof chunk === "string" || chunk instanceof Uint8Array) sent += Buffer.byteLength(chunk);
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
        request_bytes: Number(request.headers["content-length"] ?? 0),
        response_bytes: sent,
      },
    });
  });
  next();
}

// The customer comes from the verified key, never from what the request claims.
function authenticate(request: Request, response: Response, next: NextFunction): void {
  response.locals.customerId = CUSTOMERS.get(request.get("authorization")?.replace("Bearer ", "") ?? "");
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
await new Promise((listening) => server.once("listening", listening));
const api = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
const ada = { Authorization: "Bearer key-of-ada" };
const order = { method: "POST", headers: { ...ada, "Content-Type": "application/json" }, body: '{"item":"book"}' };

console.log("GET /v1/orders/7", (await fetch(`${api}/v1/orders/7`, { headers: ada })).status);
console.log("POST /v1/orders", (await fetch(`${api}/v1/orders`, order)).status);
console.log("GET /v1/orders/9", (await fetch(`${api}/v1/orders/9`)).status);
console.log("GET /health", (await fetch(`${api}/health`, { headers: ada })).status);

server.closeAllConnections();
await new Promise((closed) => server.close(closed));
await Promise.race([delivery, sleep(10_000, undefined, { ref: false })]);
if (waiting.length > 0) console.error(`${waiting.length} events lost: the metering API does not answer`);
process.exit(waiting.length > 0 ? 1 : 0);
