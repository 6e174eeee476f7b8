// How numbers, durations and times are written.

const numbers = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const NONE = "–";

export const count = (value) => (value === null || value === undefined ? NONE : numbers.format(value));
export const share = (value) => (value === null || value === undefined ? NONE : `${numbers.format(value * 100)} %`);

/** 0.4 → "0.4 s", 90 → "1 min 30 s". */
export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 0.001) return "0 s";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${numbers.format(value)} s`;
  const whole = Math.round(value);
  for (const [size, unit, smaller, rest] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole >= size) {
      const left = Math.floor((whole % size) / smaller);
      return `${Math.floor(whole / size)} ${unit}${left ? ` ${left} ${rest}` : ""}`;
    }
  }
  return `${whole} s`;
}

/** "3 min ago", "in 2 h". */
export function ago(instant, now = Date.now()) {
  const difference = (new Date(instant) - now) / 1000;
  if (Math.abs(difference) < 1) return "now";
  const text = seconds(Math.abs(difference) < 60 ? Math.round(Math.abs(difference)) : Math.abs(difference));
  return difference < 0 ? `${text} ago` : `in ${text}`;
}

export const localZone = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";

/** Date and time to the second; `zone` UTC or the browser's own. */
export function moment(instant, utc = false) {
  const options = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  const parts = new Intl.DateTimeFormat("en-CA", utc ? { ...options, timeZone: "UTC" } : options).formatToParts(new Date(instant));
  const of = Object.fromEntries(parts.map((part) => [part.type, part.value]));
  return `${of.year}-${of.month}-${of.day} ${of.hour}:${of.minute}:${of.second}`;
}

/** A text of the server's with its instants (2026-11-25 14:12:56 UTC) in the page's zone. */
export function inZone(text, utc) {
  if (utc) return text;
  return text.replace(/(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) UTC/g, (_, day, time) => `${moment(`${day}T${time}Z`)} ${localZone}`);
}

export const short = (id) => `${id.slice(0, 8)}…${id.slice(-4)}`;
export const json = (value) => JSON.stringify(value, null, 2);
