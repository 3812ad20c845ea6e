// A meter in one line, and as the body of the request that creates it.

import { stringify } from "./json.js";
import { t } from "./texts.js";

export const SIGNS = {
  equals: "=",
  not_equals: "≠",
  greater_than: ">",
  greater_than_or_equals: "≥",
  less_than: "<",
  less_than_or_equals: "≤",
  contains: "∋",
  does_not_contain: "∌",
};

/** What a meter counts, as a formula. */
export function formula({ aggregation, event_name, filter }) {
  const what = `${aggregation.type}(${aggregation.key ?? ""})`;
  return `${what} ${t.of} ${event_name}${filter ? ` ${t.where} ${clause(filter)}` : ""}`;
}

function clause(part, inner = false) {
  if (part.key !== undefined) return `${part.key} ${SIGNS[part.operator]} ${stringify(part.value)}`;
  const joined = part.clauses.map((each) => clause(each, true)).join(` ${t[part.conjunction]} `);
  return inner && part.clauses.length > 1 ? `(${joined})` : joined;
}

/** What POST /meters takes of a meter that was read. */
export function meterBody({ name, event_name, aggregation, measurement_unit, filter, description }) {
  return { name, event_name, aggregation, measurement_unit, filter, description };
}
