// What every view needs: elements, numbers, times, the clipboard. Every value from the API becomes text, never HTML.

import { Exact } from "./json.js";
import { locale, t } from "./texts.js";

export const $ = (id) => document.getElementById(id);

/**
 * An element with attributes and children; a string becomes text. A name with a hyphen is an attribute, any other a
 * property; `on` holds listeners. What is null, undefined or false is left out.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key === "on") for (const [type, listener] of Object.entries(value)) made.addEventListener(type, listener);
    else if (key.includes("-") || key === "lang" || key === "role") made.setAttribute(key, String(value));
    else made[key] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Give an element a text, if it has another: an unchanged live region stays silent. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A button that does one thing. */
export function button(text, does, attributes = {}) {
  return element("button", { type: "button", ...attributes, on: { click: does } }, text);
}

/** The options of a datalist. */
export function suggest(list, values) {
  list.replaceChildren(...[...values].sort().map((value) => element("option", { value })));
}

const DECIMAL = /^(-?)(\d+)(?:\.(\d+))?$/;

/** A decimal as people of this language write it, exact: never by way of a float. */
export function number(value) {
  const text = String(value);
  const [, sign, whole, decimals] = DECIMAL.exec(text) ?? [];
  if (whole === undefined) return text;
  const format = new Intl.NumberFormat(locale);
  const digits = decimals ? decimalMark() + decimals : "";
  return (sign ? "\u2212" : "") + format.format(BigInt(whole)) + digits;
}

function decimalMark() {
  return new Intl.NumberFormat(locale).formatToParts(1.5).find((part) => part.type === "decimal").value;
}

/** What stands in a field for a decimal, and the decimal text of what was typed there. */
export const toField = (text) => text.replace(".", decimalMark());
export const fromField = (text) => {
  const dense = text.replaceAll(/\s/g, "");
  return decimalMark() === "," ? dense.replace(",", ".") : dense;
};

/** Amounts and explanations come in English notation: the same with the numbers and words of this language. */
export function translated(text) {
  const words = Object.keys(t.priceWords).sort((a, b) => b.length - a.length);
  return text
    .replaceAll(/\d[\d,]*(\.\d+)?/g, (found) => number(found.replaceAll(",", "")))
    .replaceAll(new RegExp(`\\b(${words.join("|")})\\b`, "g"), (word) => t.priceWords[word])
    .replaceAll(" x ", " × ")
    .replaceAll(" - ", " \u2212 ");
}

/** A metadata value as it stands in JSON; a string without quotes where it cannot be taken for anything else. */
export function shown(value) {
  if (typeof value !== "string") return value instanceof Exact ? value.text : String(value);
  return /^[\w/{}.:@*+-][\w/{}.:@*+ -]*$/.test(value) && !/^(-?\d|true$|false$|null$)/.test(value)
    ? value
    : JSON.stringify(value);
}

const format = (options) => new Intl.DateTimeFormat(locale, options);

/** A time of the day, with the date if that is not the same as of `now`. */
export function moment(text, now) {
  const time = new Date(text);
  const clock = format({ timeStyle: "medium" }).format(time);
  return time.toDateString() === new Date(now).toDateString() ? clock : `${day(time)} ${clock}`;
}

/** A day of the year; a date and time in full. */
export const day = (time) => format({ day: "numeric", month: "short" }).format(time);
export const instant = (time) => format({ dateStyle: "medium", timeStyle: "medium" }).format(new Date(time));

let lastToast = 0;

/** Say something for a few seconds. */
export function toast(text) {
  say($("toast"), text);
  $("toast").hidden = false;
  clearTimeout(lastToast);
  lastToast = setTimeout(() => {
    $("toast").hidden = true;
    $("toast").textContent = "";
  }, 4000);
}

/** Put a text into the clipboard; where the browser refuses that, show it to be copied by hand. */
export async function copy(text, message = t.copied) {
  try {
    await navigator.clipboard.writeText(text);
    toast(message);
  } catch {
    $("copy-text").value = text;
    $("copy-dialog").showModal();
    $("copy-text").select();
  }
}

const waiting = new Set();

/** Draw with the next frame, once, however often it is asked for. */
export function frame(draw) {
  if (!waiting.size) {
    requestAnimationFrame(() => {
      const draws = [...waiting];
      waiting.clear();
      for (const each of draws) each();
    });
  }
  waiting.add(draw);
}

/**
 * A task that runs once at a time: asked for meanwhile, it runs once more. At least `pause` milliseconds after it did
 * something; a task that had nothing to do says so with false.
 */
export function latest(task, pause = 0) {
  let running = false;
  let again = false;
  return async function run() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      const worked = await task();
      if (pause && worked !== false) await new Promise((wake) => setTimeout(wake, pause));
    } while (again);
    running = false;
  };
}

/** A task that runs when nothing has asked for it for so many milliseconds. */
export function debounced(task, delay) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(task, delay);
  };
}

/** What this browser remembers, where it may. */
export const memory = {
  get(name) {
    try {
      return localStorage.getItem(`meterprint-${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`meterprint-${name}`, value);
    } catch {
      // Private windows may refuse: then it is forgotten.
    }
  },
};
