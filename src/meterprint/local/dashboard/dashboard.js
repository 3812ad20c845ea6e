// The page as a whole: which view is shown, in which language and theme, and for which key.

import { bench, startBench } from "./bench.js";
import { builder, startBuilder } from "./builder.js";
import { startChart } from "./chart.js";
import { $, debounced, memory, say } from "./dom.js";
import { feed, startFeed } from "./feed.js";
import { invoice, startInvoice } from "./invoice.js";
import { connect, on, rest, resume } from "./ledger.js";
import { meters, startMeters } from "./meters.js";
import { language, speak, t, TEXTS } from "./texts.js";

const VIEWS = {
  events: { open() {}, redraw: feed.redraw, leave() {} },
  meters,
  "new-meter": builder,
  invoice,
  test: bench,
};

let view = "";
let status = { state: "connecting" };
let redrawChart;

/** Show the view that the address names: #meters/mtr_1 is one meter of it. */
function route() {
  const [name, detail] = location.hash.slice(1).split("/", 2);
  const next = name in VIEWS ? name : "events";
  if (next !== view) VIEWS[view]?.leave();
  view = next;
  for (const each of Object.keys(VIEWS)) $(`view-${each}`).hidden = each !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  VIEWS[view].open(detail && decodeURIComponent(detail));
  setTitle();
}

function setTitle() {
  document.title = `${document.querySelector(`nav a[href="#${view}"]`).textContent} · Meterprint`;
}

const textOf = (path) => path.split(".").reduce((texts, key) => texts[key], t);

/** Put the texts of the language into the page. */
function drawTexts() {
  document.documentElement.lang = language;
  const put = (name, draw) => {
    for (const node of document.querySelectorAll(`[data-${name}]`)) draw(node, textOf(node.dataset[name]));
  };
  put("text", say);
  put("label", (node, text) => node.setAttribute("aria-label", text));
  put("title", (node, text) => node.setAttribute("title", text));
  put("placeholder", (node, text) => node.setAttribute("placeholder", text));
  drawStatus();
}

function drawStatus() {
  const texts = { connected: t.connected, connecting: t.connecting, noKey: t.noKey, away: t.away };
  say($("status"), texts[status.state] ?? t.refusedWhy(status.reason));
  $("status").dataset.state = status.state;
}

function chooseLanguage(chosen) {
  speak(chosen);
  $("language").value = language;
  drawTexts();
  for (const each of Object.values(VIEWS)) each.redraw();
}

function chooseTheme(chosen) {
  document.documentElement.dataset.theme = chosen;
  $("theme").value = chosen;
  redrawChart();
}

function start() {
  redrawChart = startChart();
  startFeed();
  startMeters();
  startBuilder();
  startInvoice();
  startBench();
  on("status", (now) => {
    status = now;
    drawStatus();
  });

  const preferred = navigator.language.startsWith("sv") ? "sv" : "en";
  const remembered = memory.get("language");
  chooseLanguage(remembered in TEXTS ? remembered : preferred);
  $("language").addEventListener("change", ({ target }) => {
    memory.set("language", target.value);
    chooseLanguage(target.value);
  });
  chooseTheme(["light", "dark"].includes(memory.get("theme")) ? memory.get("theme") : "auto");
  $("theme").addEventListener("change", ({ target }) => {
    memory.set("theme", target.value);
    chooseTheme(target.value);
  });

  $("key").value = memory.get("key") ?? "local";
  const useKey = () => {
    feed.clear();
    connect($("key").value.trim());
  };
  const useKeySoon = debounced(useKey, 300);
  $("key").addEventListener("input", () => {
    memory.set("key", $("key").value.trim());
    useKeySoon();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : resume()));

  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("content").focus();
  });
  // Enter in a field would send its form to nowhere; a dialog's only closes it.
  document.addEventListener("submit", (event) => event.target.method === "dialog" || event.preventDefault());
  addEventListener("hashchange", route);
  route();
  useKey();
}

start();
