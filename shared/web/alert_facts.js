// What an alert's details say, in words.

import { html } from "./html.js";
import { count, seconds, share } from "./format.js";
import { link } from "./routing.js";

const NAMES = {
  was: "Was", value: "Measured", now: "Now", threshold: "Alert above", lastMessage: "Newest error", lastJobId: "Newest job",
  lastDeadLetterId: "Newest dead letter", openedBy: "First dead letter", errorClass: "Class of errors",
};
/** These are said otherwise. */
const SILENT = ["remedy", "rule", "unit"];

/** retryAfter → Retry after. */
const spoken = (name) => name.replace(/^./, (first) => first.toUpperCase()).replaceAll(/[A-Z]/g, (letter, at) => (at ? ` ${letter.toLowerCase()}` : letter));
const LEADS = {
  lastJobId: (value) => ["jobs", value], lastDeadLetterId: (value) => ["dead-letters", value], openedBy: (value) => ["dead-letters", value],
  queue: (value) => ["jobs", null, { queue: value }],
};

/** [name, what is shown] of each detail; what it names leads there. */
export function alertFacts(details) {
  const known = Object.entries(details).filter(([name, value]) => !SILENT.includes(name) && value !== null);
  return known.map(([name, value]) => {
    const text = written(name, value, details.unit);
    return [NAMES[name] ?? spoken(name), LEADS[name] ? html`<a href=${link(...LEADS[name](value))}>${text}</a>` : html`<span class="text">${text}</span>`];
  });
}

function written(name, value, unit) {
  if (typeof value === "object") return JSON.stringify(value);
  if (!["value", "now", "threshold"].includes(name) || typeof value !== "number" || !unit) return String(value);
  return { share: () => share(value), seconds: () => seconds(value) }[unit]?.() ?? `${count(value)} ${unit}`;
}
