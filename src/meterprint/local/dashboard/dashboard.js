// Shows the events and meters of one ledger as they stand. Every value from the API is set as text, never as HTML.

const TEXTS = {
  en: {
    subtitle: "local metering API",
    title: "Events and meters of one ledger",
    key: "API key (ledger)",
    meters: "Meters",
    events: "Events",
    newest: "the newest 50",
    head: ["Time", "Customer", "Event", "Metadata", "Event id"],
    stored: (count) => `Connected. ${count} events stored in all ledgers.`,
    away: "The metering API does not answer. Start it with: meterprint up",
    refused: (why) => `Refused: ${why}`,
    noKey: "Type the API key that your events are sent with.",
    noMeters: "No meters yet. Create one with POST /meters, or run: meterprint run api_gateway/first_event",
    noEvents: "No events yet. Send one: meterprint run api_gateway/first_event",
    noCustomers: "no events counted yet",
    every: "every event",
    and: " and ",
    or: " or ",
    where: "where",
  },
  sv: {
    subtitle: "lokalt mät-API",
    title: "En liggares händelser och mätare",
    key: "API-nyckel (liggare)",
    meters: "Mätare",
    events: "Händelser",
    newest: "de 50 senaste",
    head: ["Tid", "Kund", "Händelse", "Metadata", "Händelse-id"],
    stored: (count) => `Ansluten. ${count} händelser lagrade i alla liggare.`,
    away: "Mät-API:et svarar inte. Starta det med: meterprint up",
    refused: (why) => `Avvisat: ${why}`,
    noKey: "Skriv den API-nyckel som dina händelser skickas med.",
    noMeters: "Inga mätare än. Skapa en med POST /meters, eller kör: meterprint run api_gateway/first_event",
    noEvents: "Inga händelser än. Skicka en: meterprint run api_gateway/first_event",
    noCustomers: "inga händelser räknade än",
    every: "alla händelser",
    and: " och ",
    or: " eller ",
    where: "där",
  },
};
const SIGNS = {
  equals: "=",
  not_equals: "≠",
  greater_than: ">",
  greater_than_or_equals: "≥",
  less_than: "<",
  less_than_or_equals: "≤",
  contains: "∋",
  does_not_contain: "∌",
};
const INTERVAL = 2000; // milliseconds between two looks

const $ = (id) => document.getElementById(id);
const preferred = localStorage.getItem("meterprint-language") ?? (navigator.language.startsWith("sv") ? "sv" : "en");
let language = preferred in TEXTS ? preferred : "en";
let shown = ""; // what is on the page, as text: it is drawn anew only when that changes
let seen = new Set();

/** An element with attributes and children; a string becomes text. */
function element(name, attributes, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

/** A decimal as people of this language write it, exact: never by way of a float. */
function number(text) {
  const [, sign, whole, , decimals] = /^(-?)(\d+)(\.(\d+))?$/.exec(text) ?? [];
  if (whole === undefined) return text;
  const format = new Intl.NumberFormat(language);
  const mark = format.formatToParts(1.5).find((part) => part.type === "decimal").value;
  return sign + format.format(BigInt(whole)) + (decimals ? mark + decimals : "");
}

/** A filter as a formula. */
function formula(clause, inner = false) {
  if (clause.key !== undefined) return `${clause.key} ${SIGNS[clause.operator]} ${JSON.stringify(clause.value)}`;
  const joined = clause.clauses.map((part) => formula(part, true)).join(TEXTS[language][clause.conjunction]);
  return inner && clause.clauses.length > 1 ? `(${joined})` : joined;
}

function meterCard(meter) {
  const text = TEXTS[language];
  const what = `${meter.aggregation.type}(${meter.aggregation.key ?? ""})`;
  const which = meter.filter ? `${text.where} ${formula(meter.filter)}` : `(${text.every})`;
  const customers = meter.usage.customers.flatMap(({ customer_id, quantity }) => [
    element("dt", {}, customer_id),
    element("dd", {}, number(quantity)),
  ]);
  return element(
    "article",
    {},
    element("h3", {}, meter.name),
    element("p", { className: "reading" }, number(meter.usage.quantity), " ", element("span", {}, meter.measurement_unit)),
    element("p", { className: "rule" }, `${what}: ${meter.event_name} ${which}`),
    customers.length ? element("dl", {}, ...customers) : element("p", { className: "rule" }, text.noCustomers),
  );
}

function eventRow(event) {
  const time = new Date(event.timestamp);
  const pairs = Object.entries(event.metadata ?? {});
  return element(
    "tr",
    { className: seen.size && !seen.has(event.event_id) ? "fresh" : "" },
    element("td", { title: event.timestamp }, time.toLocaleTimeString(language)),
    element("td", {}, event.customer_id),
    element("td", {}, event.event_name),
    element("td", {}, ...pairs.map(([key, value]) => element("code", {}, `${key}=${JSON.stringify(value)}`))),
    element("td", {}, event.event_id),
  );
}

function draw({ meters, events }) {
  const text = TEXTS[language];
  const head = element("tr", {}, ...text.head.map((title) => element("th", { scope: "col" }, title)));
  $("meters").replaceChildren(
    ...(meters.length ? meters.map(meterCard) : [element("p", { className: "empty" }, text.noMeters)]),
  );
  $("events").replaceChildren(
    events.length
      ? element("table", {}, element("thead", {}, head), element("tbody", {}, ...events.map(eventRow)))
      : element("p", { className: "empty" }, text.noEvents),
  );
  seen = new Set(events.map((event) => event.event_id));
}

function say(message, bad) {
  if ($("status").textContent !== message) $("status").textContent = message;
  $("status").className = bad ? "bad" : "";
}

async function get(path, key) {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${key}` }, cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.message), { refused: true });
  return body;
}

async function look() {
  const text = TEXTS[language];
  const key = $("key").value.trim();
  if (!key) {
    show({ meters: [], events: [] });
    return say(text.noKey, true);
  }
  try {
    const [health, meters, events] = await Promise.all([
      get("/local/health", key),
      get("/meters?page_size=100", key),
      get("/events?page_size=50", key),
    ]);
    const usage = await Promise.all(meters.items.map((meter) => get(`/local/meters/${meter.id}/usage`, key)));
    if (key !== $("key").value.trim()) return; // another ledger was asked for meanwhile
    show({ meters: meters.items.map((meter, index) => ({ ...meter, usage: usage[index] })), events: events.items });
    say(text.stored(number(String(health.events_stored))), false);
  } catch (error) {
    say(error.refused ? text.refused(error.message) : text.away, true);
  }
}

function show(state) {
  const now = language + JSON.stringify(state);
  if (now === shown) return;
  shown = now;
  draw(state);
}

function speak(chosen) {
  language = chosen;
  localStorage.setItem("meterprint-language", language);
  document.documentElement.lang = language;
  for (const place of document.querySelectorAll("[data-text]")) place.textContent = TEXTS[language][place.dataset.text];
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
}

for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => {
    speak(button.dataset.language);
    void look();
  });
}
$("key").value = localStorage.getItem("meterprint-key") ?? "local";
$("key").addEventListener("input", () => {
  localStorage.setItem("meterprint-key", $("key").value.trim());
  seen = new Set();
  void look();
});
document.addEventListener("visibilitychange", () => void (document.hidden || look()));

speak(language);
for (;;) {
  if (!document.hidden) await look();
  await new Promise((wake) => setTimeout(wake, INTERVAL));
}
