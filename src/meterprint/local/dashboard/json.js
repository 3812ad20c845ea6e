// JSON that keeps numbers as they were written. A JavaScript number holds 15 to 17 digits; a meter may read more.

/** A number, as the decimal text that stood in the JSON. */
export class Exact {
  constructor(text) {
    this.text = text;
  }

  toString() {
    return this.text;
  }
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** Whether a text is a number in JSON's grammar. */
export function isNumber(text) {
  return NUMBER.test(text);
}

/** The value of a JSON text; each number is an `Exact`. */
export function parse(text) {
  return JSON.parse(text, (_key, value, context) =>
    typeof value === "number" ? new Exact(context?.source ?? String(value)) : value,
  );
}

/** The JSON text of a value that `parse` gave, or that is made of the same. */
export function stringify(value, indent = 0, margin = "") {
  if (value instanceof Exact) return value.text;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const inner = margin + " ".repeat(indent);
  const parts = Array.isArray(value)
    ? value.map((item) => stringify(item, indent, inner))
    : Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => `${JSON.stringify(key)}:${indent ? " " : ""}${stringify(item, indent, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  if (!parts.length) return open + close;
  if (!indent) return open + parts.join(",") + close;
  return `${open}\n${inner}${parts.join(`,\n${inner}`)}\n${margin}${close}`;
}
