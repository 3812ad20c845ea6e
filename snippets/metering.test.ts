// What metering.ts promises: each event once, or a word on standard error.

import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { Recorder, type UsageEvent } from "./metering.ts";

type Sent = { event_id: string; timestamp: string };
type Answer = (events: Sent[], response: ServerResponse) => void;

const event = (id: string): UsageEvent => ({ event_id: id, customer_id: "cus_ada", event_name: "x", metadata: { n: 1 } });
const ids = (count: number) => Array.from({ length: count }, (_, n) => `e${n}`);
const take: Answer = (events, response) => response.end(JSON.stringify({ ingested_count: events.length }));
const refuse: Answer = (_, response) => response.writeHead(400).end('{"code": "BAD", "message": "no"}');

// Records some events against a metering API that answers so, and gives what it was sent, and what close() said.
async function play(answers: Answer[], recorded: string[], seconds = 10): Promise<{ sent: Sent[][]; isAll: boolean }> {
  const sent: Sent[][] = [];
  const server = createServer(async (request: IncomingMessage, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    sent.push(JSON.parse(Buffer.concat(chunks).toString()).events);
    (answers[Math.min(sent.length, answers.length) - 1] ?? take)(sent.at(-1) ?? [], response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const recorder = new Recorder(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, "k");
  for (const id of recorded) recorder.record(event(id));
  const isAll = await recorder.close(seconds);
  server.closeAllConnections();
  server.close();
  return { sent, isAll };
}

test("events go out in batches of at most 1,000, each once", async () => {
  const { sent, isAll } = await play([take], [...ids(2_500), "e0"]);
  assert.deepEqual(sent.flat().map((item) => item.event_id).sort(), ids(2_500).sort());
  assert.ok(sent.every((batch) => batch.length <= 1_000));
  assert.ok(isAll);
});

test("a Retry-After is obeyed, and the time and the id stay the same", async () => {
  const busy: Answer = (_, response) => response.writeHead(503, { "Retry-After": "0.3" }).end();
  const start = performance.now();
  const { sent, isAll } = await play([busy, take], ["e0"]);
  assert.ok(performance.now() - start >= 300);
  assert.deepEqual(sent[0], sent[1]);
  assert.ok(isAll);
});

test("one bad event takes no other with it, and is named", async () => {
  const picky: Answer = (events, response) => (events.some((one) => one.event_id === "e3") ? refuse : take)(events, response);
  const { sent, isAll } = await play([picky], ids(8));
  const taken = sent.filter((batch) => batch.every((one) => one.event_id !== "e3")).flat();
  assert.deepEqual(taken.map((one) => one.event_id).sort(), ids(8).filter((id) => id !== "e3"));
  assert.equal(isAll, false);
});

test("a page in place of a metering API neither takes nor refuses an event", async () => {
  const page: Answer = (_, response) => response.writeHead(400).end("<html>Bad gateway</html>");
  const { sent, isAll } = await play([page, take], ["e0"]);
  assert.deepEqual([sent.length, isAll], [2, true]);
});

test("close ends within its bound when nobody answers", async () => {
  const start = performance.now();
  const { isAll } = await play([() => undefined], ["e0"], 0.3);
  assert.ok(performance.now() - start < 5_000);
  assert.equal(isAll, false);
});
