// A chart of a meter over time, and the tables that say the same in exact numbers. Drawn by uPlot (vendor-uplot-*.js).

import { stringify } from "./json.js";
import { $, day, element, instant, number, say } from "./dom.js";
import { locale, t } from "./texts.js";

const MOST_SERIES = 8; // colours that can be told apart
const MOST_WINDOWS = 1500; // with a bar each, empty ones included
export const MOST_ROWS = 500; // of a table
const HEIGHT = 220;
const SECONDS = { minute: 60, hour: 3600 };

let plot = null;
let shownKey = "";

/** The colour that a custom property has now, light or dark. */
function colour(name) {
  const probe = $("colour-probe");
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/**
 * Show what a meter read.
 *
 * @param usage the API's answer, with `items` by window, and by customer or group if it was split.
 * @param totals [{value, quantity}] of the split over the whole range; empty if it was not split.
 * @param asked {window, split, key, additive, unit, label, start, end}: times in milliseconds; no start for all time
 */
export function drawChart(usage, totals, asked) {
  const names = totals.length ? totals.map(({ value }) => nameOf(value)) : [t.inAll];
  const drawnNames = names.slice(0, MOST_SERIES - (names.length > MOST_SERIES ? 1 : 0));
  const rest = names.length - drawnNames.length;
  if (rest && asked.additive) drawnNames.push(t.others(rest));
  const data = columns(usage.items, asked, names, drawnNames);
  $("chart-empty").hidden = usage.items.length > 0;
  $("chart").hidden = !usage.items.length;
  $("chart").setAttribute("aria-label", t.chartLabel(asked.label, usage.items.length));
  say($("chart-readout"), usage.items.length ? t.pointAtIt : "");
  if (usage.items.length) drawPlot(data, drawnNames, asked);
  drawTotals(totals, drawnNames, rest, asked);
  drawTable(usage.items, asked);
}

export function clearChart() {
  plot?.destroy();
  plot = null;
  shownKey = "";
}

/** What a customer or a metadata value is called; null is an event without the key. */
function nameOf(value) {
  if (value === null || value === undefined) return t.withoutKey;
  return typeof value === "string" ? value : stringify(value);
}

const valueOf = (item, split) => (split === "customer" ? item.customer_id : split === "key" ? item.group : undefined);

/** The numbers that uPlot takes: a column of times, and one for each series. Floats are enough for a picture. */
function columns(items, asked, names, drawnNames) {
  const { split, additive } = asked;
  const times = filledTimes(items, asked);
  const places = new Map(times.map((time, place) => [time, place]));
  const series = drawnNames.map(() => new Array(times.length).fill(additive ? 0 : null));
  const numbers = new Map(names.map((name, index) => [name, index]));
  for (const item of items) {
    const index = split ? numbers.get(nameOf(valueOf(item, split))) : 0;
    const column = series[Math.min(index ?? names.length, additive ? drawnNames.length - 1 : Infinity)];
    if (!column) continue;
    const place = places.get(Date.parse(item.window_start) / 1000);
    column[place] = (column[place] ?? 0) + Number(item.quantity);
  }
  return [times, ...series];
}

/** The starts of the windows, in seconds: for bars, the empty ones of the range as well. */
function filledTimes(items, { window, additive, start, end }) {
  const found = [...new Set(items.map((item) => Date.parse(item.window_start) / 1000))].sort((a, b) => a - b);
  if (!additive || !found.length) return found;
  const all = new Set(found);
  const fill = (until, step) => {
    for (let time = found[0]; until(time) && all.size <= MOST_WINDOWS; time = moved(time, window, step)) all.add(time);
  };
  fill((time) => time * 1000 < Math.max(end, found.at(-1) * 1000), 1);
  if (start) fill((time) => time * 1000 > start, -1);
  return all.size > MOST_WINDOWS ? found : [...all].sort((a, b) => a - b);
}

/** The start of the next window, or of the one before. */
function moved(time, window, step) {
  if (window in SECONDS) return time + step * SECONDS[window];
  const next = new Date(time * 1000);
  next.setDate(next.getDate() + step); // not 24 hours: a day in which clocks change is longer, or shorter
  return next.getTime() / 1000;
}

/** Each column on top of those before it. */
function stacked([times, ...series]) {
  const sums = [];
  for (const column of series) sums.push(column.map((value, place) => value + (sums.at(-1)?.[place] ?? 0)));
  return [times, ...sums];
}

function drawPlot(data, names, asked) {
  const drawn = asked.additive ? stacked(data) : data;
  // The highest sum is drawn first, so that the lower ones lie on it.
  const ordered = asked.additive ? [drawn[0], ...drawn.slice(1).reverse()] : drawn;
  const key = [locale, names.join("\n"), asked.window, asked.additive, asked.label].join("\n");
  if (plot && key === shownKey) {
    plot.meterprint = { data, names, asked };
    plot.setData(ordered);
    return;
  }
  clearChart();
  shownKey = key;
  plot = new globalThis.uPlot(options(names, asked), ordered, $("chart"));
  plot.meterprint = { data, names, asked };
}

function options(names, asked) {
  const order = names.map((_, index) => (asked.additive ? names.length - 1 - index : index));
  return {
    width: $("chart").clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, drag: { setScale: false }, points: { show: !asked.additive } },
    padding: [10, 22, 0, 0],
    scales: {
      x: { range: (_plot, least, most) => around(least, most, asked) },
      y: { range: (_plot, least, most) => [Math.min(0, least ?? 0), Math.max(most ?? 0, 0) * 1.05 || 1] },
    },
    axes: [
      { ...axis(), size: 30, values: (_plot, splits, _axis, _space, step) => splits.map((time) => tick(time, step)) },
      {
        ...axis(),
        size: (_plot, values) => 14 + 7.2 * Math.max(3, ...(values ?? []).map((text) => text.length)),
        values: (_plot, splits) => splits.map(short),
      },
    ],
    series: [{}, ...order.map((index) => line(index, asked))],
    hooks: { setCursor: [readout] },
  };
}

function axis() {
  return {
    stroke: () => colour("--quiet"),
    font: "12px system-ui, sans-serif",
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { stroke: () => colour("--line"), width: 1, size: 4 },
  };
}

function line(index, { additive }) {
  const paint = () => colour(`--series-${index + 1}`);
  if (!additive) return { stroke: paint, width: 2, spanGaps: true, points: { show: true, size: 5, fill: paint } };
  const paths = globalThis.uPlot.paths.bars({ size: [0.9, 48], align: 1 });
  return { fill: paint, width: 0, points: { show: false }, paths };
}

/** The range that was asked for, as far as it goes, with room for the last window. */
function around(least, most, { window, start }) {
  const length = SECONDS[window] ?? 86_400;
  const first = start ? Math.min(least, Math.max(start / 1000, least - MOST_WINDOWS * length)) : least;
  return [Math.min(first, most - 5 * length), most + length];
}

function tick(seconds, step) {
  const time = new Date(seconds * 1000);
  const midnight = !time.getHours() && !time.getMinutes() && !time.getSeconds();
  if (step >= 86_400 || midnight) return day(time);
  return new Intl.DateTimeFormat(locale, { timeStyle: step < 60 ? "medium" : "short" }).format(time);
}

function short(value) {
  return new Intl.NumberFormat(locale, { notation: "compact", maximumSignificantDigits: 4 }).format(value);
}

/** What stands under the pointer, in words. */
function readout({ cursor, meterprint }) {
  if (!meterprint || cursor.idx === null || cursor.idx === undefined) return;
  const { data, names, asked } = meterprint;
  const values = names
    .map((name, index) => [name, data[index + 1][cursor.idx]])
    .filter(([, value]) => value)
    .map(([name, value]) => `${name} ${number(Number.isInteger(value) ? value : Number(value.toPrecision(6)))}`);
  say($("chart-readout"), `${windowName(data[0][cursor.idx] * 1000, asked)}: ${values.join(" · ") || "0"}`);
}

function windowName(time, { window }) {
  if (window === "day") return day(new Date(time));
  const format = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
  return format.format(new Date(time));
}

// The same in tables

function drawTotals(totals, drawnNames, rest, { split, key, unit, additive }) {
  $("chart-totals").hidden = !totals.length;
  const head = [split === "customer" ? t.customer : key, unit];
  const rows = totals.slice(0, MOST_ROWS).map(({ value, quantity }, index) => {
    const last = additive ? drawnNames.length - 1 : Infinity;
    const series = Math.min(index, last);
    const swatch = element("span", { className: `swatch series-${series + 1}`, "aria-hidden": "true" });
    const hasLine = series < MOST_SERIES && (additive || index < drawnNames.length);
    return [element("span", {}, hasLine && swatch, nameOf(value)), number(quantity)];
  });
  $("chart-totals").replaceChildren(...tableParts(head, rows));
  const hidden = totals.length - MOST_ROWS;
  const notes = [rest && !additive && t.notDrawn(rest), hidden > 0 && t.andMore(hidden)];
  say($("chart-note"), notes.filter(Boolean).join(" "));
}

function drawTable(items, asked) {
  const { split, key, unit } = asked;
  $("chart-data").hidden = !items.length;
  const head = [t.from, ...(split ? [split === "customer" ? t.customer : key] : []), unit];
  const rows = items
    .slice(-MOST_ROWS)
    .reverse()
    .map((item) => [
      instant(item.window_start),
      ...(split ? [nameOf(valueOf(item, split))] : []),
      number(item.quantity),
    ]);
  $("chart-table").replaceChildren(...tableParts(head, rows));
  say($("chart-table-note"), items.length > MOST_ROWS ? t.newestRows(MOST_ROWS, items.length) : "");
}

/** The head and body of a table whose last column holds numbers. */
export function tableParts(head, rows) {
  const last = head.length - 1;
  const kind = (index) => (index === last ? "number" : "");
  const titles = head.map((title, index) => element("th", { scope: "col", className: kind(index) }, title));
  const lines = rows.map((cells) =>
    element("tr", {}, ...cells.map((cell, index) => element("td", { className: kind(index) }, cell))),
  );
  return [element("thead", {}, element("tr", {}, ...titles)), element("tbody", {}, ...lines)];
}

export function startChart() {
  new ResizeObserver(() => {
    const width = $("chart").clientWidth;
    if (plot && width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
  }).observe($("chart").parentElement);
  const redraw = () => plot?.redraw(false);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  return redraw;
}
