// Prices that are tried out: the form of one meter's price, and the steps of its sliders. All prices are decimal texts.

import { button, element, fromField, number, toField } from "./dom.js";
import { t } from "./texts.js";

const KINDS = ["per_unit", "graduated", "volume", "package"];
const DECIMALS = 12; // of the contract's prices
const TENTHS = ["10", "12", "15", "20", "25", "30", "40", "50", "60", "80"]; // 1 to 8, in tenths
const SMALLEST = -9; // powers of ten
const LARGEST = 3;

/** The prices of a slider: 0, then 1 to 8 billionths, and so on up to ten thousand. */
const STEPS = ["0"];
for (let power = SMALLEST; power <= LARGEST; power += 1) {
  STEPS.push(...TENTHS.map((tenths) => shifted(tenths, power - 1)));
}
STEPS.push("10000");

/** The decimal text of digits times a power of ten. */
function shifted(digits, power) {
  const padded = digits.padStart(1 - power, "0");
  const text = power < 0 ? `${padded.slice(0, power)}.${padded.slice(power)}` : digits + "0".repeat(power);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** A decimal text in units of the last decimal; null if it is none. */
function units(text) {
  const [, whole, decimals = ""] = /^(\d+)(?:\.(\d*))?$/.exec(text) ?? [];
  if (whole === undefined || decimals.length > DECIMALS) return null;
  return BigInt(whole + decimals.padEnd(DECIMALS, "0"));
}

/** The last step that is not above a price. */
function stepOf(text) {
  const wanted = units(text);
  if (wanted === null) return 0;
  let step = 0;
  while (step + 1 < STEPS.length && units(STEPS[step + 1]) <= wanted) step += 1;
  return step;
}

const DIGITS = 4; // of a quantity at 1 cent a unit: beyond that, each digit makes the first price ten times smaller

/** The price that a meter begins with: one that gives an invoice of some tens of dollars, be it bytes or orders. */
export function firstPrice(quantity) {
  const digits = quantity.split(".")[0].length;
  const price = shifted("1", Math.max(Math.min(0, DIGITS - digits), SMALLEST));
  return {
    used: true,
    kind: "per_unit",
    price,
    free: "0",
    size: "1000",
    tiers: [
      { upTo: "1000", price, fee: "0" },
      { upTo: null, price, fee: "0" },
    ],
  };
}

/** A price as POST /local/invoice-preview takes it. */
export function priceBody(meterId, { kind, price, free, size, tiers }, currency) {
  const common = { meter_id: meterId, free_threshold: free || "0", currency };
  if (kind === "per_unit") return { ...common, price_per_unit: price };
  if (kind === "package") return { ...common, price_per_unit: price, package_size: size };
  const sent = tiers.map(({ upTo, price: each, fee }) => ({ up_to: upTo, price_per_unit: each, flat_fee: fee || "0" }));
  return { ...common, tiers: sent, mode: kind };
}

/**
 * The fields of one meter's price.
 *
 * @param changed is called after each change
 */
export function priceRow(meter, price, index, changed) {
  const row = element("div", { className: "price", role: "group", "aria-label": meter.name });
  const pointer = `/prices/${index}`;
  const redraw = (focus) => {
    row.replaceChildren(...rowParts(meter, price, pointer, changed, redraw));
    if (focus) row.querySelector(`[data-pointer="${focus}"]`)?.focus();
  };
  redraw();
  return row;
}

function rowParts(meter, price, pointer, changed, redraw) {
  const toggle = element("input", {
    type: "checkbox",
    checked: price.used,
    on: {
      change: ({ target }) => {
        price.used = target.checked;
        redraw();
        changed({ structure: true });
      },
    },
  });
  const name = element("label", { className: "used" }, toggle, " ", element("b", {}, meter.name));
  if (!price.used) return [name];
  const of = { unit: meter.measurement_unit, label: meter.name };
  const parts = {
    per_unit: () => [priceLine(t.pricePer(of.unit), price, `${pointer}/price_per_unit`, of, changed)],
    package: () => [
      priceLine(t.pricePerPackage, price, `${pointer}/price_per_unit`, of, changed),
      plain(t.packageSize(of.unit), price, "size", `${pointer}/package_size`, of, changed),
    ],
  };
  const tiered = () => tierParts(price, pointer, of, changed, redraw);
  const free = plain(t.freeThreshold, price, "free", `${pointer}/free_threshold`, of, changed);
  return [
    element("div", { className: "fields" }, name, kindField(price, pointer, of, changed, redraw), free),
    ...(parts[price.kind] ?? tiered)(),
    error(pointer, `${pointer}/tiers`, `${pointer}/mode`),
  ];
}

function kindField(price, pointer, { label }, changed, redraw) {
  const options = KINDS.map((kind) => element("option", { value: kind, selected: kind === price.kind }, t.kinds[kind]));
  const take = ({ target }) => {
    price.kind = target.value;
    redraw(`${pointer}/mode`);
    changed();
  };
  const attributes = { "aria-label": `${t.kind}: ${label}`, "data-pointer": `${pointer}/mode`, on: { change: take } };
  return element("label", {}, element("span", {}, t.kind), element("select", attributes, ...options));
}

/** A decimal that is typed. */
function decimal(label, holder, name, pointer, changed) {
  return element("input", {
    value: toField(holder[name] ?? ""),
    inputMode: "decimal",
    autocomplete: "off",
    spellcheck: false,
    "data-pointer": pointer,
    "aria-label": label,
    on: {
      input: ({ target }) => {
        holder[name] = fromField(target.value);
        changed();
      },
    },
  });
}

function plain(text, holder, name, pointer, { label }, changed) {
  const field = decimal(`${text}: ${label}`, holder, name, pointer, changed);
  return element("label", {}, element("span", {}, text), field, error(pointer));
}

/** A price, by slider and by number: each follows the other. */
function priceLine(text, holder, pointer, { label }, changed) {
  const field = decimal(`${text}: ${label}`, holder, "price", pointer, () => {
    place();
    changed();
  });
  const slider = element("input", {
    type: "range",
    min: "0",
    max: String(STEPS.length - 1),
    "aria-label": `${t.slider}: ${text}: ${label}`,
    on: {
      input: () => {
        holder.price = STEPS[slider.valueAsNumber];
        field.value = toField(holder.price);
        describe();
        changed();
      },
    },
  });
  const describe = () => slider.setAttribute("aria-valuetext", t.cents(number(holder.price)));
  const place = () => {
    slider.value = String(stepOf(holder.price));
    describe();
  };
  place();
  return element(
    "div",
    { className: "price-line" },
    element("span", { "aria-hidden": "true" }, text),
    slider,
    field,
    error(pointer),
  );
}

function tierParts(price, pointer, of, changed, redraw) {
  const add = () => {
    const before = price.tiers.at(-2)?.upTo ?? "0";
    const end = /^\d+$/.test(before) && before !== "0" ? `${before}0` : "1000";
    price.tiers.splice(-1, 0, { upTo: end, price: price.tiers.at(-1).price, fee: "0" });
    redraw(`${pointer}/tiers/${price.tiers.length - 2}/up_to`);
    changed();
  };
  const rows = price.tiers.map((tier, index) => tierRow(price, tier, index, pointer, of, changed, redraw));
  return [
    element("ol", { className: "tiers" }, ...rows),
    element("p", { className: "actions" }, button(t.addTier, add)),
  ];
}

function tierRow(price, tier, index, pointer, { unit, label }, changed, redraw) {
  const path = `${pointer}/tiers/${index}`;
  const of = { unit, label: `${label}, ${t.tier(index + 1)}` };
  const take = () => {
    price.tiers.splice(index, 1);
    redraw(`${pointer}/tiers/0/price_per_unit`);
    changed();
  };
  const end =
    tier.upTo === null
      ? element("span", { className: "endless" }, index ? t.above : t.anyQuantity)
      : plain(t.upTo, tier, "upTo", `${path}/up_to`, of, changed);
  const last = tier.upTo === null;
  return element(
    "li",
    {},
    end,
    plain(t.flatFee, tier, "fee", `${path}/flat_fee`, of, changed),
    !last && button("×", take, { className: "icon", "aria-label": t.removeTier(index + 1, label), title: t.remove }),
    priceLine(t.pricePer(unit), tier, `${path}/price_per_unit`, of, changed),
    error(path),
  );
}

function error(...pointers) {
  return element("p", { className: "error", hidden: true, lang: "en", "data-errors": pointers.join(" ") });
}
