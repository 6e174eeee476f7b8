// Orders for many dead letters: asked for with their number typed or a note, then sent in portions.

import { count } from "./format.js";
import { post } from "./api.js";

const PORTION = 500;
const letters = (number) => `${count(number)} ${number === 1 ? "dead letter" : "dead letters"}`;

/** `which`: {ids} or {filter} of the API; each resolves to whether it was ordered. */
export async function redriveMany(page, number, what, which) {
  const values = await page.confirm({
    title: `Redrive ${letters(number)}?`,
    text: `${what}. Each runs again as a new job with the same payload.`,
    action: "Redrive",
    typed: String(number),
    fields: [{ name: "rate", label: "At most so many a second (empty: at once)", type: "number", min: 0 }],
  });
  if (values === null) return false;
  const rate = values.rate.trim() ? { ratePerSecond: Number(values.rate) } : {};
  return inPortions(page, "redrive", "redriven", number, { ...which, ...rate });
}

export async function discardMany(page, number, what, which) {
  const values = await page.confirm({
    title: `Discard ${letters(number)}?`,
    text: `${what}. They cannot be redriven any more. Their jobs stay in the history.`,
    action: "Discard",
    tone: "danger",
    typed: String(number),
    fields: [{ name: "note", label: "Why (it is kept at each of them)", type: "note", required: true }],
  });
  return values !== null && inPortions(page, "discard", "discarded", number, { ...which, note: values.note.trim() });
}

export async function reviewMany(page, number, what, which) {
  const values = await page.confirm({
    title: `Note something at ${letters(number)}?`,
    text: `${what}. They stay open; alerts count them no more.`,
    action: "Save the note",
    fields: [{ name: "note", label: "What was found out", type: "note", required: true }],
  });
  return values !== null && inPortions(page, "review", "reviewed", number, { ...which, note: values.note.trim() });
}

/** Order until nothing is left that fits, and say how many it were. */
async function inPortions(page, verb, done, wanted, order) {
  let number = 0;
  let skipped = 0;
  for (;;) {
    const answer = await post(`dead-letter/${verb}`, { ...order, limit: PORTION });
    number += answer[done].length;
    skipped += answer.skipped.length;
    if (!answer.more || answer[done].length === 0) break;
    if (answer.nextAt) order = { ...order, startAt: answer.nextAt };
    page.say(`${count(number)} ${done} so far …`);
  }
  const left = Math.max(skipped, wanted - number);
  page.say(`${count(number)} ${done}${left ? `, ${count(left)} left as they are (not ours, no longer kept, or dealt with meanwhile)` : ""}.`, number === 0);
  return true;
}
