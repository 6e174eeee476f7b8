// The form of a schedule, with the times at which it would run.

import { html, useEffect, useState } from "./html.js";
import { ApiError, ask, get, post, segment } from "./api.js";
import { Time } from "./parts.js";
import { readPayload, writePayload } from "./payload.js";
import { useAnswer } from "./polling.js";

const TYPING_SECONDS = 0.4;
const CATCH_UP = [["once", "one job for all that were missed"], ["skip", "none of what was missed"], ["all", "a job for each that was missed"]];

/** Ask for a schedule and make it, or change `before`. `queues` are names. */
export function askSchedule(page, queues, before, again) {
  const text = before ? "Jobs that it has made stay as they are." : "It makes a job each time that the expression is due.";
  return page.confirm({
    title: before ? `Change ${before.name}` : "New schedule", text, action: before ? "Change" : "Create",
    fields: fieldsOf(queues, before), shows: NextTimes,
    run: async (values) => {
      const body = read(values, before);
      const made = before ? await ask("PATCH", `schedules/${segment(before.name)}`, { body }) : await post("schedules", body);
      page.say(before ? `${made.name} is changed.` : `${made.name} is there.`);
      again();
    },
  });
}

function fieldsOf(queues, before) {
  const payload = writePayload(before?.payload);
  const hidden = before && !before.payload;
  return [
    ...(before ? [] : [{ name: "name", label: "Name", required: true, hint: "morning-plan" }]),
    { name: "queue", label: "Queue", type: "choice", required: true, value: before?.queue, options: [...(before ? [] : [["", "choose a queue"]]), ...queues.map((name) => [name, name])] },
    { name: "cron", label: "When (cron)", required: true, value: before?.cron, hint: "0 7 * * mon-fri", note: "minute, hour, day of month, month, day of week" },
    { name: "timeZone", label: "Time zone", required: true, value: before?.timeZone ?? (Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC"), hint: "Europe/Berlin" },
    { name: "catchUp", label: "After an outage", type: "choice", value: before?.catchUp ?? "once", options: CATCH_UP },
    { name: "priority", label: "Priority", type: "number", value: before?.priority ? String(before.priority) : "", note: "1 first, 10 last; empty: the queue's" },
    { name: "payload", label: "Payload (JSON)", type: "note", rows: 7, most: 1_000_000, required: !before, value: payload, note: hidden ? "Hidden from your role; empty: it stays as it is." : null },
    ...(before ? [] : [{ name: "paused", label: "Paused: it makes no jobs before it is resumed", type: "check", value: false }]),
  ];
}

/** The body of the request; of a change, only what is another. */
function read(values, before) {
  const given = {
    ...(before ? {} : { name: values.name.trim(), paused: values.paused }),
    queue: values.queue, cron: values.cron.trim(), timeZone: values.timeZone.trim(), catchUp: values.catchUp,
    priority: values.priority.trim() === "" ? null : Number(values.priority),
  };
  if (values.payload.trim() || !before) given.payload = readPayload(values.payload);
  if (!before) return given;
  const changed = Object.entries(given).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(before[name]));
  if (changed.length === 0) throw new ApiError(0, "Nothing is changed.");
  return Object.fromEntries(changed);
}

function NextTimes({ values }) {
  const [asked, setAsked] = useState({ cron: values.cron, timeZone: values.timeZone });
  useEffect(() => {
    const timer = setTimeout(() => setAsked({ cron: values.cron.trim(), timeZone: values.timeZone.trim() }), TYPING_SECONDS * 1000);
    return () => clearTimeout(timer);
  }, [values.cron, values.timeZone]);
  const load = (signal) => (asked.cron && asked.timeZone ? get("schedule-times", asked, signal) : Promise.resolve(null));
  const { answer, error } = useAnswer(load, [asked]);
  return html`<div class="next" role="status"><p class="note">Next runs</p>
    ${error ? html`<p class="problem">${error.errors?.map((one) => one.message).join("; ") || error.message}</p>` : null}
    ${answer ? html`<ol class="plain">${answer.times.map((at) => html`<li><${Time} at=${at} relative /></li>`)}</ol>` : null}
    ${!answer && !error ? html`<p class="none">–</p>` : null}</div>`;
}
