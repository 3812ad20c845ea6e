// A filter that is put together by hand: conditions joined by and/or, or groups of them, within the contract's limits.

import { button, element, suggest } from "./dom.js";
import { SIGNS } from "./formula.js";
import { Exact, isNumber } from "./json.js";
import { t } from "./texts.js";

const MOST_CLAUSES = 10;
const MOST_LEVELS = 4; // the root and three below it

const isGroup = (clause) => "clauses" in clause;
const levels = (clause) => (isGroup(clause) ? 1 + Math.max(0, ...clause.clauses.map(levels)) : 0);
const blank = () => ({ key: "", operator: "equals", type: "text", value: "" });
export const group = (clauses, conjunction = "and") => ({ conjunction, clauses });

/** What goes over the wire. A number that is none is sent as it was typed: the API says what is wrong with it. */
export function filterBody(clause) {
  if (isGroup(clause)) return { conjunction: clause.conjunction, clauses: clause.clauses.map(filterBody) };
  return { key: clause.key.trim(), operator: clause.operator, value: valueOf(clause) };
}

function valueOf({ type, value }) {
  if (type === "boolean") return value === "true";
  if (type === "number" && isNumber(value.trim())) return new Exact(value.trim());
  return value;
}

/** Whether every condition has its key: the others are not asked about yet. */
export function isFilled(clause) {
  if (isGroup(clause)) return clause.clauses.every(isFilled);
  return clause.key.trim() !== "" && (clause.type !== "number" || isNumber(clause.value.trim()));
}

let made = 0; // ids of lists

/** The fields of a filter, in `root`. `keys` gives the metadata keys that were seen, with their values. */
export class FilterEditor {
  constructor(root, keys, changed) {
    this.root = root;
    this.keys = keys;
    this.changed = changed;
    this.filter = null;
  }

  set(filter) {
    this.filter = filter;
    this.draw();
  }

  /** Draw anew after clauses came or went, and go on where the reader was. */
  draw(focus) {
    if (this.filter) this.root.replaceChildren(this.group(this.filter, "/filter", 1, null));
    else this.root.replaceChildren(button(t.addFilter, () => this.begin(), { id: "add-filter" }));
    if (focus) this.root.querySelector(`[data-pointer="${focus}"]`)?.focus();
  }

  begin() {
    this.filter = group([blank()]);
    this.redraw("/filter/clauses/0/key");
  }

  redraw(focus) {
    this.draw(focus);
    this.changed();
  }

  group(filter, pointer, level, parent) {
    const ofGroups = isGroup(filter.clauses[0]);
    const choose = this.select(`${pointer}/conjunction`, t.conjunction, ["and", "or"], filter.conjunction, (value) => {
      filter.conjunction = value;
    }, (value) => t[ofGroups ? `${value}Groups` : `${value}Conditions`]);
    const rows = filter.clauses.map((clause, index) => {
      const inner = `${pointer}/clauses/${index}`;
      return isGroup(clause)
        ? this.group(clause, inner, level + 1, filter)
        : this.condition(clause, inner, filter, index, parent);
    });
    return element(
      "fieldset",
      { className: "group" },
      element("legend", { className: "sr" }, level === 1 ? t.filter : t.groupOf(level)),
      element("div", { className: "group-head" }, choose, this.error(pointer), this.error(`${pointer}/clauses`)),
      ...rows,
      element("div", { className: "group-foot" }, ...this.groupButtons(filter, pointer, level, parent, ofGroups)),
    );
  }

  groupButtons(filter, pointer, level, parent, ofGroups) {
    const full = filter.clauses.length >= MOST_CLAUSES;
    const add = () => {
      filter.clauses.push(ofGroups ? group([blank()]) : blank());
      const last = `${pointer}/clauses/${filter.clauses.length - 1}`;
      this.redraw(ofGroups ? `${last}/clauses/0/key` : `${last}/key`);
    };
    const split = () => {
      filter.clauses = [group(filter.clauses, filter.conjunction), group([blank()])];
      filter.conjunction = filter.conjunction === "and" ? "or" : "and";
      this.redraw(`${pointer}/clauses/1/clauses/0/key`);
    };
    // Splitting puts what is below one level deeper.
    const deepest = level - 1 + levels(filter);
    return [
      button(ofGroups ? t.addGroup : t.addCondition, add, { disabled: full }),
      deepest < MOST_LEVELS && button(t.splitGroups, split),
      button(level === 1 ? t.removeFilter : t.removeGroup, () => this.remove(filter, parent), { className: "quiet" }),
      full && element("span", { className: "note" }, t.mostClauses(MOST_CLAUSES)),
    ];
  }

  /** Take a group out; what is left of a pair moves up into its place. */
  remove(filter, parent) {
    if (!parent) this.filter = null;
    else {
      parent.clauses.splice(parent.clauses.indexOf(filter), 1);
      if (parent.clauses.length === 1) Object.assign(parent, parent.clauses[0]);
    }
    this.redraw();
    this.root.querySelector("button, select")?.focus();
  }

  condition(clause, pointer, filter, index, parent) {
    const list = `filter-keys-${(made += 1)}`;
    const values = `filter-values-${made}`;
    const keyList = element("datalist", { id: list });
    const valueList = element("datalist", { id: values });
    suggest(keyList, this.keys().keys());
    const key = this.input(`${pointer}/key`, t.key, clause.key, list, (value) => {
      clause.key = value;
      const type = this.typeOf(value);
      suggest(valueList, this.valuesOf(value));
      if (type && type !== clause.type && clause.value === "") {
        clause.type = type;
        if (type === "boolean") clause.value = "true";
        this.draw(`${pointer}/key`);
      }
    });
    suggest(valueList, this.valuesOf(clause.key));
    const take = () => {
      if (filter.clauses.length === 1) return this.remove(filter, parent);
      filter.clauses.splice(index, 1);
      return this.redraw(`${pointer.replace(/\d+$/, Math.max(0, index - 1))}/key`);
    };
    return element(
      "div",
      { className: "condition" },
      key,
      this.select(`${pointer}/operator`, t.operator, Object.keys(SIGNS), clause.operator, (value) => {
        clause.operator = value;
      }, (value) => `${SIGNS[value]} ${t.operators[value]}`),
      this.select(`${pointer}/type`, t.valueType, ["text", "number", "boolean"], clause.type, (value) => {
        clause.type = value;
        if (value === "boolean") clause.value = "true";
        this.draw(`${pointer}/type`);
      }, (value) => t.types[value]),
      this.valueField(clause, pointer, values),
      button("×", take, { className: "icon", "aria-label": t.removeCondition(clause.key), title: t.remove }),
      this.error(pointer, `${pointer}/key`, `${pointer}/operator`, `${pointer}/value`),
      keyList,
      valueList,
    );
  }

  valueField(clause, pointer, list) {
    const take = (value) => {
      clause.value = value;
    };
    if (clause.type === "boolean") {
      return this.select(`${pointer}/value`, t.value, ["true", "false"], clause.value, take, (value) => value);
    }
    const input = this.input(`${pointer}/value`, t.value, clause.value, list, take);
    input.inputMode = clause.type === "number" ? "decimal" : "text";
    return input;
  }

  typeOf(key) {
    const values = [...(this.keys().get(key)?.values() ?? [])];
    if (!values.length) return null;
    if (values.every((value) => value instanceof Exact)) return "number";
    return values.every((value) => typeof value === "boolean") ? "boolean" : "text";
  }

  valuesOf(key) {
    return [...(this.keys().get(key)?.values() ?? [])].map(String);
  }

  input(pointer, label, value, list, take) {
    const attributes = { value, "aria-label": label, placeholder: label, autocomplete: "off", spellcheck: false };
    const input = element("input", attributes);
    input.setAttribute("list", list);
    return this.field(input, pointer, take, "input");
  }

  select(pointer, label, values, value, take, nameOf) {
    const options = values.map((each) => element("option", { value: each, selected: each === value }, nameOf(each)));
    return this.field(element("select", { "aria-label": label }, ...options), pointer, take, "change");
  }

  field(node, pointer, take, type) {
    node.dataset.pointer = pointer;
    node.addEventListener(type, () => {
      take(node.value);
      this.changed();
    });
    return node;
  }

  error(...pointers) {
    return element("p", { className: "error", hidden: true, lang: "en", "data-errors": pointers.join(" ") });
  }
}
