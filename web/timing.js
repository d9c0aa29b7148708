/** Waiting: the pauses between tries, and what people read of them. */

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

/**
 * Full jitter: anywhere between nothing and a bound that doubles, so that clients that were cut off together do not
 * come back together.
 * @param {number} attempt 0 for the first
 * @returns {number} milliseconds
 */
export function fullJitter(attempt) {
  return Math.random() * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** attempt);
}

/** @param {number} milliseconds @param {AbortSignal} [signal] ends it at once */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", resolve, { once: true });
  });
}
