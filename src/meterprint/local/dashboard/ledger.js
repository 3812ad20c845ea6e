// The ledger of the key: its meters, clock and faults as they stand, and the stream that says what changes.

import { begin, get, getAll, isOver, Refused, readStream, session } from "./api.js";
import { latest } from "./dom.js";

export const ledger = { meters: [], clock: { now: "", frozen: false }, faults: [] };

/** What was seen in events: suggestions for the fields of the page. */
export const seen = { names: new Map(), customers: new Set() };
const MOST_CUSTOMERS = 1000;
const MOST_VALUES = 50; // for each metadata key

const FAULT_PAUSE = 1000; // milliseconds
let nextLook = 0;

const listeners = new Map();

/** Listen to a change: events, duplicates, refused, meters, clock, faults, reset, loaded, status. */
export function on(name, listener) {
  listeners.set(name, [...(listeners.get(name) ?? []), listener]);
}

function tell(name, data) {
  for (const listener of listeners.get(name) ?? []) listener(data);
}

/** What time it is for this ledger. */
export function now() {
  return ledger.clock.frozen ? new Date(ledger.clock.now) : new Date();
}

/** Remember the names, keys and values of events. */
function learn(events) {
  for (const { event_name, customer_id, metadata } of events) {
    if (seen.customers.size < MOST_CUSTOMERS) seen.customers.add(customer_id);
    const keys = seen.names.get(event_name) ?? new Map();
    seen.names.set(event_name, keys);
    for (const [key, value] of Object.entries(metadata ?? {})) {
      const values = keys.get(key) ?? new Map();
      keys.set(key, values);
      if (values.size < MOST_VALUES) values.set(String(value), value);
    }
  }
}

/** The metadata keys of one event name, with their values; of all names, if that one was never seen. */
export function keysOf(eventName) {
  if (seen.names.has(eventName)) return seen.names.get(eventName);
  return new Map([...seen.names.values()].flatMap((keys) => [...keys]));
}

async function loadMeters() {
  const [used, archived] = await Promise.all([getAll("/meters?"), getAll("/meters?archived=true&")]);
  ledger.meters = [
    ...used.map((meter) => ({ ...meter, archived: false })),
    ...archived.map((meter) => ({ ...meter, archived: true })),
  ];
  for (const meter of ledger.meters) if (!seen.names.has(meter.event_name)) seen.names.set(meter.event_name, new Map());
  tell("meters");
}

async function loadFaults() {
  setFaults((await get("/local/faults")).pending);
}

/** No message says that a request has met its fault: while some are pending, look. */
export function setFaults(pending) {
  ledger.faults = pending;
  tell("faults");
  clearTimeout(nextLook);
  if (pending.length) nextLook = setTimeout(() => quietly(loadFaults), FAULT_PAUSE);
}

export function setClock(clock) {
  ledger.clock = clock;
  tell("clock");
}

async function load() {
  const [{ items }, { items: rejections }, clock] = await Promise.all([
    get("/events?page_size=50"),
    get("/local/rejections"),
    get("/local/clock"),
    loadMeters(),
    loadFaults(),
  ]);
  learn(items);
  setClock(clock);
  tell("loaded", { events: items, rejections });
}

const TRIES = 20;

/** Load; a fault that was asked for may hit the page too, so more than once. */
async function loadSurely() {
  const { ended } = session;
  for (let tries = 1; ; tries += 1) {
    try {
      return await load();
    } catch (error) {
      if (isOver(error) || ended !== session.ended) return undefined;
      if (tries === TRIES) return tell("status", { state: "refused", reason: error.message });
      await sleep(1000);
    }
  }
}

/** Do what may fail because the API is away or refuses: the stream, or the next try, says so. */
const quietly = (task) => task().catch(() => {});
const reloadMeters = latest(() => quietly(loadMeters), 300);

function take(name, data) {
  if (name === "hello") {
    failures = 0;
    tell("status", { state: "connected" });
    void loadSurely();
  } else if (name === "stored") {
    learn(data.events);
    tell("events", data);
  } else if (name === "duplicate") tell("duplicates", data);
  else if (name === "refused") tell("refused", data);
  else if (name === "meters") void reloadMeters();
  else if (name === "clock") setClock(data);
  else if (name === "reset") {
    seen.names.clear();
    seen.customers.clear();
    tell("reset");
    void loadSurely();
  }
}

let failures = 0;
let watch = new AbortController(); // stops the stream
const sleep = (milliseconds) => new Promise((wake) => setTimeout(wake, milliseconds));

async function listen() {
  watch.abort();
  watch = new AbortController();
  const { signal } = watch;
  failures = 0;
  while (!signal.aborted) {
    try {
      await readStream(take, signal);
      if (signal.aborted) return;
      tell("status", { state: "away" });
    } catch (error) {
      if (signal.aborted) return;
      const refused = error instanceof Refused;
      tell("status", refused ? { state: "refused", reason: error.message } : { state: "away" });
    }
    failures += 1;
    await sleep(Math.min(500 * 2 ** (failures - 1), 10_000) * (0.8 + Math.random() * 0.4));
  }
}

const SENDABLE = /^[\x21-\x7e]+$/; // what fetch() puts into a header, without blanks

/** Show the ledger of a key from now on. */
export function connect(key) {
  begin(key);
  watch.abort();
  ledger.meters = [];
  ledger.faults = [];
  ledger.clock = { now: "", frozen: false };
  for (const name of ["meters", "clock", "faults"]) tell(name);
  if (!SENDABLE.test(key)) return tell("status", { state: "noKey" });
  tell("status", { state: "connecting" });
  return void listen();
}

/** A browser keeps six connections to a host: a tab that nobody sees gives its own back. */
export function rest() {
  watch.abort();
}

/** Go on after a rest. */
export function resume() {
  if (SENDABLE.test(session.key)) void listen();
}
