/** Shows what went wrong, in the server's own words, with what support would ask for. */

import { Left, NoReply, Problem } from "./api.js";
import { element } from "./dom.js";

/**
 * @param {HTMLElement} place a live region; emptied when `error` is null
 * @param {unknown} error
 */
export function showProblem(place, error) {
  if (error instanceof Left) return;
  place.replaceChildren(...(error === null ? [] : parts(error)));
  place.hidden = error === null;
}

/** @param {unknown} error */
function parts(error) {
  if (error instanceof Problem) {
    const faults = error.faults.map((fault) => element("li", {}, fault.detail));
    const trace = [error.code, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · ");
    return [
      element("p", { class: "problem-title" }, error.title || error.message),
      ...(error.title && error.message !== error.title ? [element("p", {}, error.message)] : []),
      ...(faults.length ? [element("ul", {}, ...faults)] : []),
      element("p", { class: "problem-trace" }, trace),
    ];
  }
  const text = error instanceof NoReply ? error.message : "Something unexpected happened on this page.";
  if (!(error instanceof NoReply)) console.error(error);
  return [element("p", { class: "problem-title" }, text)];
}
