// Requests as commands for a shell. The key stays in its environment variable: a copied command can be pasted anywhere.

import { stringify } from "./json.js";

/** A text as one word of a POSIX shell: nothing in single quotes is special, save the quote itself. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The curl command of a POST request. */
export function curl(path, body) {
  return [
    `curl --fail-with-body --silent --show-error "\${METERING_API_URL%/}${path}"`,
    `--header "Authorization: Bearer $METERING_API_KEY"`,
    `--header "Content-Type: application/json"`,
    `--data-raw ${quoted(stringify(body))}`,
  ].join(" \\\n  ");
}

/**
 * The curl command that sends an event again, under the same id. The API refuses a timestamp that is older than an
 * hour; such an event goes without: an id that was seen is ignored whatever else the event holds.
 */
export function eventCurl(event, { old }) {
  const { event_id, customer_id, event_name, timestamp, metadata } = event;
  const sent = { event_id, customer_id, event_name, timestamp: old ? undefined : timestamp, metadata: metadata ?? {} };
  return curl("/events/ingest", { events: [sent] });
}
