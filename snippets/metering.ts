// Records usage events at once, and delivers them in the background: what the TypeScript programs share.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const MOST_IN_A_REQUEST = 1_000; // events that the metering API takes at a time
const MOST_WAITING = 100_000; // events, about 50 MB
const LONGEST_PAUSE = 5; // seconds: shorter than close() takes, so that it tries at least once more
const LONGEST_ASKED = 600; // seconds: a Retry-After beyond this is a mistake

export type UsageEvent = {
  event_id?: string; // each id is billed once; a random one, if there is none
  customer_id: string;
  event_name: string;
  metadata: Record<string, string | number | boolean>;
};

type Answer = { isTaken: boolean; isRefused: boolean; text: string; retryAfter: number };

export class Recorder {
  readonly #url: string;
  readonly #key: string;
  readonly #waiting = new Map<string, string>(); // events as JSON by their ids, oldest first
  readonly #stop = new AbortController();
  #delivery: Promise<void> | undefined;
  #lost = 0; // events
  #isClosed = false;

  constructor(url: string, key: string) {
    this.#url = `${url.replace(/\/+$/, "")}/events/ingest`;
    this.#key = key;
  }

  static fromEnv(): Recorder {
    const missing = ["METERING_API_URL", "METERING_API_KEY"].filter((name) => !process.env[name]).join(" and ");
    if (missing) throw new Error(`${missing} not set: \`meterprint up\` starts a local metering API and prints both`);
    const { METERING_API_URL: url = "", METERING_API_KEY: key = "" } = process.env;
    return new Recorder(url, key);
  }

  // The id and the time are set here, once: they stay the same on every try.
  record({ event_id = randomUUID(), ...event }: UsageEvent): void {
    if (this.#waiting.has(event_id)) return;
    const json = JSON.stringify({ event_id, ...event, timestamp: new Date().toISOString() });
    if (this.#isClosed) return this.#notMetered(event_id, "recorded after close()", json);
    if (this.#waiting.size >= MOST_WAITING) return this.#notMetered(event_id, `${MOST_WAITING} events wait already`, json);
    this.#waiting.set(event_id, json);
    this.#delivery ??= this.#deliverAll();
  }

  // At the end of the application: whether the metering API has taken all events, within so many seconds.
  async close(seconds = 10): Promise<boolean> {
    this.#isClosed = true;
    const timer = setTimeout(() => this.#stop.abort(), seconds * 1_000);
    await this.#delivery?.catch(() => undefined); // rejected when the time is up
    clearTimeout(timer);
    for (const [id, json] of this.#waiting) this.#notMetered(id, `not delivered within ${seconds} s`, json);
    return this.#lost === 0;
  }

  async #deliverAll(): Promise<void> {
    while (this.#waiting.size > 0) await this.#deliver([...this.#waiting.keys()].slice(0, MOST_IN_A_REQUEST));
    this.#delivery = undefined;
  }

  async #deliver(ids: string[]): Promise<void> {
    const { isRefused, text } = await this.#send(ids.map((id) => this.#waiting.get(id)));
    if (isRefused && ids.length > 1) {
      // One bad event refuses all that it came with: halves find it.
      const middle = Math.ceil(ids.length / 2);
      await this.#deliver(ids.slice(0, middle));
      await this.#deliver(ids.slice(middle));
      return;
    }
    for (const id of ids) {
      if (isRefused) this.#notMetered(id, `refused: ${text}`, this.#waiting.get(id));
      this.#waiting.delete(id);
    }
  }

  // Until they are taken or refused. With the same ids, what was stored already is not billed twice.
  async #send(events: unknown[]): Promise<Answer> {
    const body = `{"events":[${events.join()}]}`;
    for (let attempt = 0; ; attempt += 1) {
      const answer = await this.#post(body);
      if (answer.isTaken || answer.isRefused) return answer;
      this.#stop.signal.throwIfAborted();
      console.error(`${events.length} events not delivered, trying again: ${answer.text}`);
      const jitter = Math.random() * Math.min(0.5 * 2 ** attempt, LONGEST_PAUSE);
      await sleep((answer.retryAfter + jitter) * 1_000, undefined, { signal: this.#stop.signal });
    }
  }

  async #post(body: string): Promise<Answer> {
    try {
      const response = await fetch(this.#url, {
        method: "POST",
        headers: { Authorization: `Bearer ${this.#key}`, "Content-Type": "application/json" },
        body,
        signal: AbortSignal.any([this.#stop.signal, AbortSignal.timeout(10_000)]),
      });
      return answerOf(response, await response.text());
    } catch (error) {
      const { message, cause } = error as Error & { cause?: NodeJS.ErrnoException };
      return { isTaken: false, isRefused: false, text: `no answer: ${cause?.code ?? message}`, retryAfter: 0 };
    }
  }

  // With all that it takes to send it later: the id keeps it from being billed twice.
  #notMetered(id: string, why: string, json = ""): void {
    this.#lost += 1;
    console.error(`event ${id} ${why}: not metered: ${json}`);
  }
}

// What is no word of a metering API, such as a proxy's page, neither takes nor refuses an event.
function answerOf({ status, headers }: Response, body: string): Answer {
  let said: { ingested_count?: unknown; code?: unknown } | null = null;
  try {
    said = JSON.parse(body);
  } catch {} // no JSON
  return {
    isTaken: status === 200 && typeof said?.ingested_count === "number",
    isRefused: status === 413 || ([400, 422].includes(status) && typeof said?.code === "string"),
    text: `${status} ${body}`.replace(/\s+/g, " ").slice(0, 500),
    retryAfter: Math.min(Math.max(Number(headers.get("Retry-After")) || 0, 0), LONGEST_ASKED),
  };
}
