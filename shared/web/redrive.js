// Redriving many dead letters: asked for with their number typed, then ordered in portions.

import { count } from "./format.js";
import { post } from "./api.js";

const PORTION = 500;

/** {} or {ratePerSecond} once it is confirmed, or null. */
export async function askRate(page, number, what) {
  const values = await page.confirm({
    title: `Redrive ${count(number)} ${number === 1 ? "dead letter" : "dead letters"}?`,
    text: `${what}. Each runs again as a new job with the same payload.`,
    action: "Redrive",
    typed: String(number),
    fields: [{ name: "rate", label: "At most so many a second (empty: at once)", type: "number", min: 0 }],
  });
  if (values === null) return null;
  return values.rate.trim() ? { ratePerSecond: Number(values.rate) } : {};
}

/** Order until nothing is left that fits, and say how many it were. `rate` as askRate gives it. */
export async function redriveAll(page, which, rate) {
  let done = 0;
  let skipped = 0;
  for (;;) {
    const answer = await post("dead-letter/redrive", { ...which, ...rate, limit: PORTION });
    done += answer.redriven.length;
    skipped += answer.skipped.length;
    if (!answer.more || answer.redriven.length === 0) break;
    page.say(`${count(done)} redriven so far …`);
  }
  page.say(`${count(done)} redriven${skipped ? `, ${count(skipped)} left as they are` : ""}.`, done === 0);
}
