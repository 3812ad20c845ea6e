// The invoice view: prices that are tried on what a customer used, and the invoice that they give, at once.

import { isOver, post, Refused } from "./api.js";
import { tableParts } from "./chart.js";
import { curl } from "./curl.js";
import { $, copy, element, frame, latest, say, translated } from "./dom.js";
import { clearErrors, reasonsOf, showErrors } from "./errors.js";
import { ledger, now, on, seen } from "./ledger.js";
import { onReadings, readingOf, showReadings } from "./meters.js";
import { firstPrice, priceBody, priceRow } from "./prices.js";
import { t } from "./texts.js";

const MOST_PRICES = 100; // in one request

const prices = new Map(); // by the meter's id
let visible = false;
let drawnMeters = "";

const usedMeters = () => ledger.meters.filter((meter) => !meter.archived).slice(0, MOST_PRICES);

function priceOf(meter) {
  if (!prices.has(meter.id)) prices.set(meter.id, firstPrice(readingOf(meter.id).quantity));
  return prices.get(meter.id);
}

const priced = () => usedMeters().filter((meter) => priceOf(meter).used);

/** The start and end of a month in UTC, so many months from now. */
function month(offset) {
  const time = now();
  return new Date(Date.UTC(time.getUTCFullYear(), time.getUTCMonth() + offset, 1)).toISOString();
}

function body() {
  const periods = { all: [], this: [month(0), month(1)], last: [month(-1), month(0)] };
  const [start, end] = periods[$("invoice-period").value];
  const currency = $("invoice-currency").value.trim().toUpperCase();
  return {
    customer_id: $("invoice-customer").value,
    start,
    end,
    prices: priced().map((meter) => priceBody(meter.id, priceOf(meter), currency)),
  };
}

const price = latest(async () => {
  if (!visible) return undefined;
  const asked = body();
  if (!asked.customer_id || !asked.prices.length) return showNothing();
  try {
    const answer = await post("/local/invoice-preview", asked);
    clearErrors($("view-invoice"));
    return show(answer);
  } catch (error) {
    if (isOver(error)) return undefined;
    $("invoice").classList.add("stale");
    if (error instanceof Refused) showErrors($("view-invoice"), reasons(error));
    return undefined;
  }
});

function reasons(error) {
  const found = reasonsOf(error).map(({ pointer, reason }) => ({
    pointer: pointer.endsWith("/currency") ? "/currency" : pointer,
    reason,
  }));
  // One currency field speaks for all prices, so its reason is shown once.
  return [...new Map(found.map((each) => [each.pointer + each.reason, each])).values()];
}

function showNothing() {
  $("invoice").hidden = true;
}

function show({ lines, amount }) {
  $("invoice").hidden = false;
  $("invoice").classList.remove("stale");
  const rows = lines.map((line) => [
    element("span", {}, element("b", {}, line.name), element("small", {}, translated(line.explanation))),
    translated(line.amount),
  ]);
  $("invoice-lines").replaceChildren(...tableParts([t.line, t.amount], rows));
  say($("invoice-total"), translated(amount));
}

const changed = ({ structure = false } = {}) => {
  if (structure) drawPrices();
  frame(price);
};

function drawPrices() {
  const places = new Map(priced().map((meter, index) => [meter.id, index]));
  const labelOf = (field) => field?.getAttribute("aria-label") ?? field?.closest("label")?.textContent;
  const focused = labelOf(document.activeElement);
  const rows = usedMeters().map((meter) => priceRow(meter, priceOf(meter), places.get(meter.id) ?? 0, changed));
  $("prices").replaceChildren(...rows);
  const fields = [...$("prices").querySelectorAll("input, select")];
  if (focused) fields.find((field) => labelOf(field) === focused)?.focus();
}

/** The customers that any meter has read, and those of the latest events. */
function customers() {
  const found = new Set(seen.customers);
  for (const { id } of ledger.meters) {
    for (const { customer_id } of readingOf(id)?.customers ?? []) found.add(customer_id);
  }
  return [...found].sort();
}

function drawChoices() {
  const names = customers();
  const chosen = $("invoice-customer").value;
  const drawn = [...$("invoice-customer").options].map(({ value }) => value);
  if (names.join("\n") !== drawn.join("\n")) {
    $("invoice-customer").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    if (names.includes(chosen)) $("invoice-customer").value = chosen;
  }
  const ready = names.length && usedMeters().length;
  $("invoice-form").hidden = !ready;
  $("invoice-empty").hidden = Boolean(ready);
  say($("invoice-empty"), usedMeters().length ? t.noCustomers : t.noMetersToPrice);
}

function draw() {
  if (!visible || !usedMeters().every(({ id }) => readingOf(id))) return;
  drawChoices();
  const wanted = JSON.stringify(usedMeters().map(({ id, name, measurement_unit }) => [id, name, measurement_unit]));
  if (wanted !== drawnMeters) drawPrices();
  drawnMeters = wanted;
  void price();
}

export function startInvoice() {
  on("meters", draw);
  on("clock", draw);
  on("reset", () => prices.clear());
  onReadings(draw);
  for (const id of ["invoice-customer", "invoice-period"]) $(id).addEventListener("change", () => changed());
  $("invoice-currency").addEventListener("input", () => changed());
  $("invoice-curl").addEventListener("click", () => void copy(curl("/local/invoice-preview", body()), t.copiedCurl));
}

export const invoice = {
  open() {
    visible = true;
    showReadings(true);
    draw();
  },
  redraw() {
    drawnMeters = "";
    draw();
  },
  leave() {
    visible = false;
    showReadings(false);
  },
};
