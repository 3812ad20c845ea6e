// The API's reasons, each at the field that its JSON Pointer leads to.

import { element } from "./dom.js";
import { t } from "./texts.js";

let made = 0;

/** Take the reasons away from all fields of a form. */
export function clearErrors(form) {
  for (const place of form.querySelectorAll("[data-errors]")) {
    place.replaceChildren();
    place.hidden = true;
  }
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-describedby");
  }
}

/**
 * Show each reason at its field, or at the nearest place above it; the form itself takes what no field takes.
 *
 * @param details [{pointer, reason}] as the API gives them
 * @param silent pointers of fields that nobody has touched yet
 */
export function showErrors(form, details, silent = new Set()) {
  clearErrors(form);
  for (const { pointer, reason } of details) {
    if (silent.has(pointer)) continue;
    const place = placeOf(form, pointer);
    place.id ||= `error-${(made += 1)}`;
    place.append(element("span", {}, reason));
    place.hidden = false;
    const field = form.querySelector(`[data-pointer="${CSS.escape(pointer)}"]`);
    field?.setAttribute("aria-invalid", "true");
    field?.setAttribute("aria-describedby", place.id);
  }
}

/** The reasons of a request that failed: the API's, or that it did not answer. */
export function reasonsOf(error) {
  if (error.details?.length) return error.details;
  return [{ pointer: "/", reason: error.details ? error.message : t.away }];
}

function placeOf(form, pointer) {
  for (let path = pointer; path; path = path.slice(0, path.lastIndexOf("/"))) {
    const place = form.querySelector(`[data-errors~="${CSS.escape(path)}"]`);
    if (place) return place;
  }
  return form.querySelector('[data-errors~="/"]');
}
