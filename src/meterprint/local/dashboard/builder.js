// The meter builder: a form, what the meter would read over the stored events, and the request that creates it.

import { isOver, post, Refused } from "./api.js";
import { tableParts } from "./chart.js";
import { curl } from "./curl.js";
import { $, copy, debounced, element, frame, latest, number, say, suggest, toast } from "./dom.js";
import { clearErrors, reasonsOf, showErrors } from "./errors.js";
import { filterBody, FilterEditor, isFilled } from "./filter.js";
import { formula } from "./formula.js";
import { stringify } from "./json.js";
import { keysOf, on, seen } from "./ledger.js";
import { t } from "./texts.js";

const DELAY = 200; // milliseconds after the last key
const FIELDS = ["name", "event_name", "key", "measurement_unit", "description"];

let touched = new Set(); // pointers of fields that were changed
let visible = false;
let editor;

const value = (name) => $(`meter-form`).elements[name].value.trim();

/** The meter as POST /meters takes it. */
function body() {
  const type = value("type");
  return {
    name: value("name"),
    event_name: value("event_name"),
    aggregation: { type, key: type === "count" ? null : value("key") },
    measurement_unit: value("measurement_unit"),
    filter: editor.filter && filterBody(editor.filter),
    description: value("description") || null,
  };
}

/** A meter can be tried before it has a name and a unit. */
function bodyToTry() {
  const made = body();
  return { ...made, name: made.name || "-", measurement_unit: made.measurement_unit || "-" };
}

function isReady({ event_name, aggregation }) {
  return event_name && (aggregation.type === "count" || aggregation.key) && (!editor.filter || isFilled(editor.filter));
}

const preview = latest(async () => {
  const meter = bodyToTry();
  if (!isReady(meter)) return showNothing();
  try {
    const answer = await post("/local/meters/preview", meter);
    clearErrors($("meter-form"));
    return showPreview(answer, meter);
  } catch (error) {
    if (isOver(error)) return undefined;
    showNothing();
    if (error instanceof Refused) showErrors($("meter-form"), reasonsOf(error), untouched());
    return undefined;
  }
});

function untouched() {
  const all = [...$("meter-form").querySelectorAll(".row > [data-pointer]")].map((field) => field.dataset.pointer);
  return new Set(all.filter((pointer) => !touched.has(pointer)));
}

function showNothing() {
  $("preview-result").hidden = true;
  $("preview-empty").hidden = false;
}

function showPreview({ quantity, named_count, matching_count, customers }, { event_name, measurement_unit }) {
  const unit = value("measurement_unit") || t.units;
  $("preview-result").hidden = false;
  $("preview-empty").hidden = true;
  $("preview-quantity").replaceChildren(number(quantity), " ", element("small", {}, unit));
  say($("preview-count"), t.matching(number(matching_count), number(named_count), event_name));
  const rows = customers.slice(0, 20).map((customer) => [customer.customer_id, number(customer.quantity)]);
  $("preview-customers").hidden = !rows.length;
  const head = [t.customer, measurement_unit === "-" ? t.quantity : unit];
  $("preview-customers").replaceChildren(...tableParts(head, rows));
  say($("preview-more"), customers.length > 20 ? t.andMore(customers.length - 20) : "");
}

const previewSoon = debounced(() => void preview(), DELAY);

/** Draw what follows from the form at once, and ask the API a little later. */
function changed() {
  const made = body();
  $("key-row").hidden = made.aggregation.type === "count";
  say($("builder-formula"), made.event_name ? formula(made) : "");
  say($("builder-json"), stringify(made, 2));
  if (visible) previewSoon();
}

async function create() {
  try {
    const { id, name } = await post("/meters", body());
    toast(t.created(name));
    reset();
    location.hash = `#meters/${id}`;
  } catch (error) {
    if (isOver(error)) return;
    showErrors($("meter-form"), reasonsOf(error));
    $("meter-form").querySelector("[aria-invalid]")?.focus();
  }
}

function reset() {
  $("meter-form").reset();
  touched = new Set();
  clearErrors($("meter-form"));
  editor.set(null);
  changed();
}

function suggestAll() {
  suggest($("event-names"), seen.names.keys());
  suggest($("metadata-keys"), keysOf(value("event_name")).keys());
}

/** Come to this view, perhaps with the name of an event to count. */
async function open(eventName) {
  visible = true;
  suggestAll();
  if (eventName) {
    $("meter-form").elements.event_name.value = eventName;
    editor.set(null);
  }
  changed();
  void preview();
}

export function startBuilder() {
  const form = $("meter-form");
  editor = new FilterEditor($("filter"), () => keysOf(value("event_name")), changed);
  editor.set(null);
  form.addEventListener("input", ({ target }) => {
    if (target.dataset.pointer) touched.add(target.dataset.pointer);
    if (target.name === "event_name") suggestAll();
    if (FIELDS.includes(target.name) || target.name === "type") changed();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void create();
  });
  $("builder-clear").addEventListener("click", reset);
  $("builder-curl").addEventListener("click", () => void copy(curl("/meters", body()), t.copiedCurl));
  $("builder-copy").addEventListener("click", () => void copy(stringify(body(), 2)));
  on("loaded", () => visible && void open());
  on("events", () => {
    if (!visible) return;
    frame(suggestAll);
    void previewOften();
  });
}

const previewOften = latest(preview, 1000);

export const builder = {
  open,
  redraw: () => {
    editor.draw();
    changed();
  },
  leave: () => {
    visible = false;
  },
};
