// Meter every request of an Express application.

import { once } from "node:events";
import type { AddressInfo } from "node:net";
import express, { type NextFunction, type Request, type Response } from "express";
import { Recorder } from "../../metering.ts";

const CUSTOMERS = new Map([["key-of-ada", "cus_ada"]]); // your key store

const recorder = Recorder.fromEnv();

// One event for each request of a customer, when its response is complete or broken off.

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
    recorder.record({
      customer_id: response.locals.customerId,
      event_name: "api.request",
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
await recorder.close();
