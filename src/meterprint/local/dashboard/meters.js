// The meters view: each meter's reading as it changes, and one of them in full, with a chart.

import { get, Refused, isOver, request } from "./api.js";
import { clearChart, drawChart, MOST_ROWS, tableParts } from "./chart.js";
import { curl } from "./curl.js";
import { $, button, copy, element, latest, number, say, suggest, toast } from "./dom.js";
import { formula, meterBody } from "./formula.js";
import { stringify } from "./json.js";
import { keysOf, ledger, now, on } from "./ledger.js";
import { language, t } from "./texts.js";

const PAUSE = 1000; // milliseconds between two looks at the readings
const AT_ONCE = 4; // requests
const HOURS = { quarter: 0.25, hour: 1, "6hours": 6, day: 24, week: 168, month: 744 };
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "UTC";

const readings = new Map(); // by the meter's id
let dirty = new Set(); // ids of meters whose reading may have changed
let chosen = ""; // the id of the meter in full
let wanted = ""; // the id that the address names; its meter may be on its way
let visible = false;

export const readingOf = (id) => readings.get(id);
const changed = [];
/** Listen to readings that were looked up anew. */
export const onReadings = (listener) => changed.push(listener);

function touch(meters) {
  for (const { id } of meters) dirty.add(id);
  void look();
}

function takeStored({ count, events }) {
  const names = new Set(events.map(({ event_name }) => event_name));
  const complete = Number(count) === events.length; // a big batch names only its last events
  touch(ledger.meters.filter(({ event_name }) => !complete || names.has(event_name)));
}

/** Look up the readings that may have changed; again at most once a second, and only while they are on the page. */
const look = latest(async () => {
  if (!visible || !dirty.size) return false;
  const ids = [...dirty];
  dirty = new Set();
  try {
    for (let index = 0; index < ids.length; index += AT_ONCE) {
      await Promise.all(ids.slice(index, index + AT_ONCE).map(lookUp));
    }
    if (ids.includes(chosen)) void redrawChosen();
  } catch {
    for (const id of ids) dirty.add(id); // the next change, or the next connection, tries again
  }
  drawList();
  for (const listener of changed) listener();
  return true;
}, PAUSE);

async function lookUp(id) {
  if (ledger.meters.some((meter) => meter.id === id)) readings.set(id, await get(`/local/meters/${id}/usage`));
}

function takeMeters() {
  const known = new Set(ledger.meters.map(({ id }) => id));
  for (const id of readings.keys()) if (!known.has(id)) readings.delete(id);
  if (known.has(wanted)) chosen = wanted;
  else if (!known.has(chosen)) chosen = ledger.meters[0]?.id ?? "";
  drawList();
  drawHead();
  touch(ledger.meters);
}

// The list

let listed = ""; // what the list holds, readings aside

/** New readings change the numbers only: a link that is pressed, or has the focus, stays. */
function drawList() {
  const content = stringify([language, chosen, ledger.meters]);
  if (content === listed) {
    for (const meter of ledger.meters) drawReading($(`reading-${meter.id}`), meter);
    return;
  }
  listed = content;
  const focused = document.activeElement?.closest?.("#meter-list a")?.hash;
  $("meter-list").replaceChildren(...ledger.meters.map(item));
  if (focused) [...$("meter-list").querySelectorAll("a")].find((link) => link.hash === focused)?.focus();
  $("meters-empty").hidden = ledger.meters.length > 0;
  $("meter").hidden = !ledger.meters.length;
  $("view-meters").classList.toggle("nothing", !ledger.meters.length);
}

function item(meter) {
  const link = element(
    "a",
    { href: `#meters/${meter.id}`, "aria-current": meter.id === chosen ? "true" : null },
    element("b", {}, meter.name),
    meter.archived && element("span", { className: "tag" }, t.archived),
    drawReading(element("span", { className: "amount", id: `reading-${meter.id}` }), meter),
    element("small", {}, formula(meter)),
  );
  return element("li", { className: meter.archived ? "archived" : "" }, link);
}

function drawReading(node, meter) {
  const usage = readings.get(meter.id);
  const unit = element("small", {}, meter.measurement_unit);
  node.replaceChildren(usage ? number(usage.quantity) : "…", " ", unit);
  return node;
}

// One meter

const theMeter = () => ledger.meters.find(({ id }) => id === chosen);

let headed = ""; // the meter that the buttons act on

function drawHead() {
  const meter = theMeter();
  if (!meter) return;
  drawReading($("meter-reading"), meter);
  drawCustomers(readings.get(meter.id));
  suggest($("meter-keys"), keysOf(meter.event_name).keys());
  if (headed === language + stringify(meter)) return;
  headed = language + stringify(meter);
  say($("meter-name"), meter.name);
  $("meter-tag").hidden = !meter.archived;
  say($("meter-formula"), formula(meter));
  say($("meter-about"), meter.description ?? "");
  $("meter-actions").replaceChildren(
    button(meter.archived ? t.unarchive : t.archive, () => void toggleArchived(meter)),
    button(t.copyCurl, () => void copy(curl("/meters", meterBody(meter)), t.copiedCurl)),
    button(t.copyId, () => void copy(meter.id)),
  );
}

function drawCustomers(usage) {
  const customers = usage?.customers ?? [];
  $("meter-customers").hidden = !customers.length;
  const hidden = customers.length - MOST_ROWS;
  say($("customers-more"), hidden > 0 ? t.andMore(hidden) : "");
  const rows = customers.slice(0, MOST_ROWS).map(({ customer_id, quantity }) => [customer_id, number(quantity)]);
  $("customers-table").replaceChildren(...tableParts([t.customer, usage?.measurement_unit ?? ""], rows));
}

async function toggleArchived(meter) {
  try {
    if (meter.archived) await request("POST", `/meters/${meter.id}/unarchive`);
    else await request("DELETE", `/meters/${meter.id}`);
    $("meter-actions").firstChild?.focus();
  } catch (error) {
    if (!isOver(error)) toast(error.message);
  }
}

/** What the controls above the chart ask for. */
function asked(meter) {
  const by = $("chart-split").value;
  const key = $("chart-key").value.trim();
  const split = by === "key" && !key ? "" : by;
  const additive = ["count", "sum"].includes(meter.aggregation.type);
  const window = document.querySelector("input[name=window]:checked").value;
  const end = now().getTime();
  const hours = HOURS[$("chart-range").value];
  const start = hours && end - hours * 3_600_000;
  return { window, split, key, additive, unit: meter.measurement_unit, label: meter.name, start, end };
}

function query({ window, split, key, start }) {
  const made = new URLSearchParams();
  if (start) made.set("start", new Date(start).toISOString());
  if (window) {
    made.set("window", window);
    made.set("timezone", zone);
  }
  if (split === "customer") made.set("per_customer", "true");
  if (split === "key") made.set("group_by", key);
  return made;
}

async function drawChosen() {
  const meter = theMeter();
  if (!meter) return clearChart();
  drawHead();
  const options = asked(meter);
  $("chart-key-label").hidden = $("chart-split").value !== "key";
  const path = `/local/meters/${meter.id}/usage?`;
  const [usage, sums] = await Promise.all([
    get(path + query(options)),
    options.split === "key" ? get(path + query({ ...options, window: "" })) : null,
  ]);
  if (theMeter()?.id !== meter.id) return undefined;
  say($("chart-total"), t.inRange(number(usage.quantity), meter.measurement_unit));
  return drawChart(usage, totalsOf(usage, sums, options), options);
}

/** The parts of a split over the whole range, the biggest first. */
function totalsOf(usage, sums, { split }) {
  const parts = {
    customer: () => usage.customers.map(({ customer_id, quantity }) => ({ value: customer_id, quantity })),
    key: () => sums.items.map(({ group, quantity }) => ({ value: group, quantity })),
  };
  return (parts[split]?.() ?? []).sort((a, b) => Number(b.quantity) - Number(a.quantity));
}

/** Draw the chosen meter; the API may be away for a while, and says so itself. */
const redrawChosen = latest(async () => {
  try {
    await drawChosen();
  } catch (error) {
    if (error instanceof Refused) toast(error.message);
  }
});

/** Come to this view, perhaps to one of its meters. */
function open(id) {
  visible = true;
  wanted = id ?? "";
  if (ledger.meters.some((meter) => meter.id === id)) chosen = id;
  drawList();
  void redrawChosen();
  void look();
}

function redraw() {
  clearChart();
  drawList();
  drawHead();
  if (visible) void redrawChosen();
}

export function startMeters() {
  on("meters", takeMeters);
  on("events", takeStored);
  on("loaded", () => touch(ledger.meters));
  on("clock", () => visible && void redrawChosen());
  on("reset", () => readings.clear());
  for (const control of document.querySelectorAll("#chart-controls :is(input, select)")) {
    control.addEventListener("change", () => void redrawChosen());
  }
}

/** The invoice needs the readings too. */
export function showReadings(does) {
  visible = does;
  if (does) void look();
}

export const meters = { open, redraw, leave: () => showReadings(false) };
