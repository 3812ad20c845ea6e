// The events view: what arrives, newest first. Stored events, duplicates and refused requests are rows of one list.

import { stringify } from "./json.js";
import { eventCurl } from "./curl.js";
import { $, button, copy, element, frame, moment, number, say, shown } from "./dom.js";
import { now, on } from "./ledger.js";
import { t } from "./texts.js";

const KEPT = 200; // rows on the page
const OLD = 60 * 60 * 1000; // milliseconds: the API refuses an older event

let rows = []; // on the page, newest first
let arrived = []; // not yet on the page, oldest first
let ids = new Set(); // of the stored events in both
let counts = { stored: 0, duplicate: 0, refused: 0 };
let paused = false;
let search = "";

function clear() {
  rows = [];
  arrived = [];
  ids = new Set();
  counts = { stored: 0, duplicate: 0, refused: 0 };
  redraw();
}

/** Take a row in. Beyond what the page keeps, older ones are forgotten at once: a burst costs no more than a page. */
function add(row) {
  if (row.event && ids.has(row.event.event_id)) return;
  if (row.event) ids.add(row.event.event_id);
  arrived.push(row);
  if (arrived.length > 2 * KEPT) forget(arrived.splice(0, arrived.length - KEPT));
}

function forget(gone) {
  for (const { event } of gone) if (event) ids.delete(event.event_id);
}

function takeStored({ at, count, events, warnings }) {
  const warned = new Map(warnings.map((warning) => [warning.event_id, warning]));
  const hidden = Number(count) - events.length;
  counts.stored += Number(count);
  if (hidden > 0) add({ kind: "more", at, hidden });
  for (const event of events) add({ kind: "stored", at, event, warning: warned.get(event.event_id), fresh: true });
  frame(draw);
}

function takeDuplicates({ at, count, event_ids }) {
  counts.duplicate += Number(count);
  add({ kind: "duplicate", at, count, ids: event_ids, fresh: true });
  frame(draw);
}

function takeRefused(rejection) {
  counts.refused += 1;
  add({ kind: "refused", at: rejection.at, rejection, fresh: true });
  frame(draw);
}

/** What the ledger held when the page was opened, or came back; what is shown already stays as it is. */
function takeLoaded({ events, rejections }) {
  const known = new Set([...rows, ...arrived].filter((row) => row.rejection).map((row) => stringify(row.rejection)));
  const stored = events.filter(({ event_id }) => !ids.has(event_id));
  const refused = rejections.filter((rejection) => !known.has(stringify(rejection)));
  const older = [
    ...stored.map((event) => ({ kind: "stored", at: event.timestamp, event })),
    ...refused.map((rejection) => ({ kind: "refused", at: rejection.at, rejection })),
  ];
  for (const { event } of older) if (event) ids.add(event.event_id);
  rows = [...rows, ...older].sort((a, b) => new Date(b.at) - new Date(a.at));
  forget(rows.splice(KEPT));
  redraw();
}

// Drawing

function draw() {
  if (!paused && arrived.length) {
    const fresh = arrived.reverse().slice(0, KEPT);
    forget(arrived.slice(KEPT));
    arrived = [];
    $("feed").prepend(...fresh.map(drawn));
    rows = [...fresh, ...rows];
    for (const row of rows.slice(KEPT)) row.node.remove();
    forget(rows.splice(KEPT));
  }
  drawCounts();
  drawEmpty();
}

function redraw() {
  $("feed").replaceChildren(...rows.map(drawn));
  drawCounts();
  drawEmpty();
}

function drawCounts() {
  for (const [kind, count] of Object.entries(counts)) say($(`count-${kind}`), number(count));
  say($("feed-pause"), paused ? t.goOn(arrived.length) : t.pause);
  $("feed-pause").setAttribute("aria-pressed", String(paused));
}

function drawEmpty() {
  const kind = $("feed").dataset.show;
  const visible = rows.some((row) => !row.node.hidden && (kind === "all" || row.node.dataset.kind === kind));
  $("feed-empty").hidden = visible;
  const text = rows.length ? t.nothingMatches : t.noEvents;
  say($("feed-empty"), visible ? "" : text);
}

function drawn(row) {
  const node = element("li", { className: row.fresh ? "fresh" : "" });
  row.fresh = false;
  node.dataset.kind = row.kind === "more" ? "stored" : row.kind;
  if (row.warning) node.dataset.warning = row.warning.code;
  if (row.kind === "more") node.append(element("p", { className: "more" }, t.moreInBatch(row.hidden)));
  else node.append(line(row, node));
  row.node = node;
  row.text = node.textContent.toLowerCase();
  node.hidden = !row.text.includes(search);
  if (row.open) node.append(detail(row));
  return node;
}

function line(row, node) {
  const cells = { stored: storedCells, duplicate: duplicateCells, refused: refusedCells }[row.kind](row);
  const time = row.event?.timestamp ?? row.at;
  const attributes = { className: "line", "aria-expanded": String(Boolean(row.open)) };
  const made = button("", () => toggle(row, node, made), attributes);
  made.append(element("time", { dateTime: time }, moment(time, now())), " ", ...cells.flatMap((cell) => [cell, " "]));
  return made;
}

const cell = (name, ...content) => element("span", { className: name }, ...content);

function storedCells({ event, warning }) {
  const pairs = Object.entries(event.metadata ?? {}).flatMap(([key, value]) => [cell("key", key), ` ${shown(value)} `]);
  return [
    cell("kind", warning ? t.notBilled : t.storedOne),
    cell("customer", event.customer_id),
    cell("name", event.event_name),
    cell("pairs", ...pairs),
  ];
}

function duplicateCells({ count, ids: seenIds }) {
  return [cell("kind", t.duplicateOne), cell("what", t.ignored(count)), cell("pairs", seenIds.join(", "))];
}

function refusedCells({ rejection: { status, code, message, method, path, event_count } }) {
  const events = event_count === null || event_count === undefined ? "" : ` · ${t.eventCount(event_count)}`;
  return [
    cell("kind", `${t.refusedOne} ${status}`),
    cell("what", element("b", {}, code), element("span", { lang: "en" }, ` ${message}`)),
    cell("pairs", `${method} ${path}${events}`),
  ];
}

function toggle(row, node, line) {
  row.open = !row.open;
  line.setAttribute("aria-expanded", String(row.open));
  if (row.open) node.append(detail(row));
  else node.lastChild.remove();
}

function detail(row) {
  const inside = { stored: storedDetail, duplicate: duplicateDetail, refused: refusedDetail }[row.kind](row);
  return element("div", { className: "detail" }, ...inside);
}

function storedDetail({ event, warning }) {
  const { business_id: _, ...sent } = event;
  const old = () => now() - new Date(event.timestamp) > OLD;
  return [
    warning && element("p", { className: "warning", lang: "en" }, element("b", {}, warning.code), ` ${warning.message}`),
    element(
      "p",
      { className: "actions" },
      button(t.copyCurl, () => void copy(eventCurl(event, { old: old() }), old() ? t.copiedOld : t.copiedCurl)),
      button(t.copyJson, () => void copy(stringify(sent, 2))),
      element("a", { href: `#new-meter/${encodeURIComponent(event.event_name)}` }, t.meterOfThis),
    ),
    element("pre", {}, stringify(sent, 2)),
  ];
}

function duplicateDetail({ count, ids: seenIds }) {
  const hidden = Number(count) - seenIds.length;
  return [
    element("p", {}, t.duplicateMeans),
    element("ul", { className: "ids" }, ...seenIds.map((id) => element("li", {}, element("code", {}, id)))),
    hidden > 0 && element("p", {}, t.andMore(hidden)),
  ];
}

function refusedDetail({ rejection }) {
  const reasons = rejection.details ?? [];
  return [
    element("p", { lang: "en" }, rejection.message),
    reasons.length > 0 &&
      element(
        "dl",
        { className: "reasons", lang: "en" },
        ...reasons.flatMap(({ pointer, reason }) => [
          element("dt", {}, element("code", {}, pointer || "/")),
          element("dd", {}, reason),
        ]),
      ),
    element("p", { className: "actions" }, button(t.copyJson, () => void copy(stringify(rejection, 2)))),
  ];
}

// What the reader does

function show(kind) {
  $("feed").dataset.show = kind;
  for (const chip of document.querySelectorAll("[data-show-kind]")) {
    chip.setAttribute("aria-pressed", String(chip.dataset.showKind === kind));
  }
  drawEmpty();
}

function find() {
  search = $("feed-search").value.trim().toLowerCase();
  for (const row of rows) row.node.hidden = !row.text.includes(search);
  drawEmpty();
}

export function startFeed() {
  on("events", takeStored);
  on("duplicates", takeDuplicates);
  on("refused", takeRefused);
  on("loaded", takeLoaded);
  on("reset", clear);
  for (const chip of document.querySelectorAll("[data-show-kind]")) {
    chip.addEventListener("click", () => show(chip.dataset.showKind));
  }
  $("feed-search").addEventListener("input", find);
  $("feed-pause").addEventListener("click", () => {
    paused = !paused;
    draw();
  });
}

export const feed = { clear, redraw };
