// The form that enqueues a message anew, with what was wrong corrected.

import { post, segment } from "./api.js";
import { readPayload, writePayload } from "./payload.js";
import { go } from "./routing.js";

/** Ask for the payload of a new job in place of this one, make it and open it. `step` has what is known of it. */
export async function askAnew(page, job, step) {
  // Of this question: an answer that got lost makes no second job when it is sent again.
  const idempotencyKey = `anew:${job.id}:${Date.now()}`;
  let made = null;
  await page.confirm({
    title: `Enqueue it anew in ${step.target}?`, action: "Enqueue",
    text: `A new job with the correlation id of this one. ${job.state === "dead" ? "This one stays dead: discard it afterwards. " : ""}What is wrong must be corrected here.`,
    fields: [{
      name: "payload", label: "Payload (JSON)", type: "note", rows: 14, most: 1_000_000, required: true,
      value: writePayload(step.payload),
      note: job.payloadMasked ? "What it was is hidden from your role: write it whole." : null,
    }],
    run: async (values) => {
      const body = { payload: readPayload(values.payload), priority: job.priority, correlationId: job.correlationId, idempotencyKey };
      made = await post(`${segment(step.target)}/jobs`, body);
    },
  });
  if (made === null) return;
  page.say("It is enqueued as a new job, which is shown now.");
  go("jobs", made.id);
}
