// Requests to the metering API that serves this page, with the key that was typed in.

import { parse, stringify } from "./json.js";

/** An answer that is not 2xx. `details` are the API's: a JSON Pointer and a reason each. */
export class Refused extends Error {
  constructor(status, body) {
    super(body.message ?? `status ${status}`);
    this.status = status;
    this.details = body.details ?? [];
  }
}

export const session = { key: "", ended: new AbortController() };

/** Begin anew with another key: what was asked for with the old one comes to nothing. */
export function begin(key) {
  session.ended.abort();
  session.ended = new AbortController();
  session.key = key;
}

/** Whether an error only says that another key was chosen meanwhile. */
export const isOver = (error) => error.name === "AbortError";

function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${session.key}`, ...options.headers };
  return fetch(path, { cache: "no-store", signal: session.ended.signal, ...options, headers });
}

/** Send a request; what comes back, with exact numbers, or null for an empty body. */
export async function request(method, path, body) {
  const options = { method };
  if (body !== undefined) {
    options.body = stringify(body);
    options.headers = { "Content-Type": "application/json" };
  }
  const answer = await ask(path, options);
  const text = await answer.text();
  let value = null;
  try {
    value = text ? parse(text) : null;
  } catch {
    throw new Refused(answer.status, {});
  }
  if (!answer.ok) throw new Refused(answer.status, value ?? {});
  return value;
}

export const get = (path) => request("GET", path);
export const post = (path, body) => request("POST", path, body);

/** All items of a list that comes in pages. */
export async function getAll(path) {
  const items = [];
  for (let page = 0; page < 10; page += 1) {
    const { items: found } = await get(`${path}page_size=100&page_number=${page}`);
    items.push(...found);
    if (found.length < 100) break;
  }
  return items;
}

const SILENCE = 45_000; // milliseconds: the API writes a comment every 15 s

/** Read the stream of messages until it ends, breaks off or is stopped; `take` gets the name and the data of each. */
export async function readStream(take, stop) {
  const silent = new AbortController();
  const signal = AbortSignal.any([session.ended.signal, stop, silent.signal]);
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(new Error("silence")), SILENCE);
  };
  heard();
  try {
    const answer = await ask("/local/stream", { signal, headers: { Accept: "text/event-stream" } });
    if (!answer.ok) throw new Refused(answer.status, parse((await answer.text()) || "{}"));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) takeBlock(block, take);
    }
  } finally {
    clearTimeout(timer);
  }
}

function takeBlock(block, take) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trim());
  }
  if (data.length) take(name, parse(data.join("\n")));
}
