// The test view: the test clock, faults that the next requests meet, and a ledger that begins anew.

import { get, isOver, post } from "./api.js";
import { $, button, element, instant, say, toast } from "./dom.js";
import { clearErrors, reasonsOf, showErrors } from "./errors.js";
import { ledger, now, on, setClock, setFaults } from "./ledger.js";
import { t } from "./texts.js";

const WITH_RETRY_AFTER = ["429", "503"];
const HOUR = 3600; // seconds

/** Do what the API may refuse, and say why. */
async function trying(task) {
  try {
    await task();
  } catch (error) {
    if (!isOver(error)) toast(error.details?.[0]?.reason ?? error.message);
  }
}

/** Set the clock to a time that was typed. */
async function setTo(time) {
  clearErrors($("clock-form"));
  try {
    setClock(await post("/local/clock", { now: time }));
  } catch (error) {
    if (!isOver(error)) showErrors($("clock-form"), reasonsOf(error));
  }
}

const moveClock = (step) => trying(async () => setClock(await post("/local/clock", await step())));

/** The same day and time of the next month, or that month's last day. */
function nextMonth(time) {
  const next = new Date(time);
  next.setUTCDate(1);
  next.setUTCMonth(next.getUTCMonth() + 1);
  const last = new Date(Date.UTC(next.getUTCFullYear(), next.getUTCMonth() + 1, 0)).getUTCDate();
  next.setUTCDate(Math.min(time.getUTCDate(), last));
  return next;
}

const STEPS = {
  hour: () => ({ advance: HOUR }),
  day: () => ({ advance: 24 * HOUR }),
  // By the API's clock: this page may not have read it yet.
  month: async () => ({ now: nextMonth(new Date((await get("/local/clock")).now)).toISOString() }),
  real: () => ({ now: null }),
};

function drawClock() {
  const { frozen } = ledger.clock;
  $("clock-strip").hidden = !frozen;
  say($("clock-strip-now"), frozen ? instant(ledger.clock.now) : "");
  say($("clock-now"), frozen ? instant(ledger.clock.now) : t.realTime);
  $("clock-real").disabled = !frozen;
  if (document.activeElement !== $("clock-set")) $("clock-set").value = now().toISOString().replace(/\.\d+/, "");
}

function drawFaults() {
  const pending = ledger.faults;
  $("fault-strip").hidden = !pending.length;
  say($("fault-strip-text"), pending.length ? t.pendingFaults(pending.map(faultText).join(", ")) : "");
  $("fault-list").replaceChildren(
    ...pending.map((fault) =>
      element("li", {}, faultText(fault), " ", button(t.clear, () => void addFault({ kind: fault.kind, times: 0 }))),
    ),
  );
  $("fault-none").hidden = pending.length > 0;
}

const faultText = ({ kind, times }) => `${Number(times)} × ${t.faults[kind] ?? kind}`;

const addFault = (body) => trying(async () => setFaults((await post("/local/faults", body)).pending));

function drawFaultFields() {
  const kind = $("fault-kind").value;
  $("fault-retry").hidden = !WITH_RETRY_AFTER.includes(kind);
  $("fault-seconds").hidden = kind !== "hang";
  say($("fault-about"), t.faultAbout[kind]);
}

function askForFault(event) {
  event.preventDefault();
  const form = event.target.elements;
  const body = { kind: form.kind.value, times: form.times.valueAsNumber };
  if (WITH_RETRY_AFTER.includes(body.kind)) body.retry_after = form.retry_after.valueAsNumber;
  if (body.kind === "hang") body.seconds = form.seconds.valueAsNumber;
  void addFault(body);
}

async function reset() {
  $("reset-dialog").close();
  await trying(async () => {
    await post("/local/reset");
    toast(t.resetDone);
  });
}

export function startBench() {
  on("clock", drawClock);
  on("faults", drawFaults);
  for (const each of document.querySelectorAll("[data-step]")) {
    each.addEventListener("click", () => void moveClock(STEPS[each.dataset.step]));
  }
  $("clock-form").addEventListener("submit", (event) => {
    event.preventDefault();
    void setTo($("clock-set").value.trim());
  });
  $("fault-form").addEventListener("submit", askForFault);
  $("fault-kind").addEventListener("change", drawFaultFields);
  $("reset-open").addEventListener("click", () => $("reset-dialog").showModal());
  $("reset-yes").addEventListener("click", () => void reset());
}

export const bench = {
  open: drawClock,
  redraw() {
    drawClock();
    drawFaults();
    drawFaultFields();
  },
  leave() {},
};
