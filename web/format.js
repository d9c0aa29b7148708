/** Values as people read them. */

const moneyFormats = /** @type {Map<string, Intl.NumberFormat>} */ (new Map());
const plain = new Intl.NumberFormat();
const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

/** @param {number} value */
export function count(value) {
  return plain.format(value);
}

/** @param {number} minorUnits @param {string} currency ISO 4217 */
export function money(minorUnits, currency) {
  let format = moneyFormats.get(currency);
  if (!format) {
    format = new Intl.NumberFormat(undefined, { style: "currency", currency });
    moneyFormats.set(currency, format);
  }
  return format.format(minorUnits / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2));
}

/** The time of day, with the date before it where that is not today. @param {Date} when */
export function clock(when) {
  const isToday = when.toDateString() === new Date().toDateString();
  return isToday ? time.format(when) : `${day.format(when)}, ${time.format(when)}`;
}

/** @param {Date} when */
export function fullMoment(when) {
  return moment.format(when);
}

/** `7 s`, `3 min`, `2 h`. @param {number} milliseconds */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

/** @param {{name: string, quantity: number}[]} items */
export function itemList(items) {
  return items.map(({ name, quantity }) => `${quantity} × ${name}`).join("\n");
}

/** @param {{name: string, quantity: number}[]} items */
export function itemSummary(items) {
  const [first, ...others] = items;
  if (!first) return "";
  const head = `${first.quantity} × ${first.name}`;
  return others.length === 0 ? head : `${head} and ${others.length} more`;
}
