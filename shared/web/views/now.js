// The head of a job's page: what it is, why, what to do now, and what to tell who asks. All of it is said by the server.

import { html } from "../html.js";
import { ask, post, segment } from "../api.js";
import { inZone } from "../format.js";
import { Act, Badge, usePage } from "../parts.js";
import { askAnew } from "../anew_form.js";
import { go, link } from "../routing.js";

const LIVE = ["scheduled", "waiting", "ready", "active"];
const TONES = { good: "good", bad: "bad", waits: "busy", plain: "mute" };
const LINKS = {
  "show-job": (target) => ["Open the job", link("jobs", target)],
  "show-letter": (target) => ["Open the dead letter", link("dead-letters", target)],
  "show-alert": (target) => ["Open the alert", link("alerts", target)],
  "show-limits": (target) => ["Limits", link("limits", null, { queue: target })],
  "show-subscriptions": () => ["Subscriptions", link("subscriptions")],
};
const FORMS = {
  "enqueue-anew": { label: "Enqueue anew …", ask: askAnew },
};
/** What has no button here is a command. */
const COMMANDS = {
  "sign-in": (target) => `./dev sign-in --account ${target}`,
  doctor: () => "./dev q doctor",
  "look-at-logs": () => "./dev logs host",
};

/** Each order: what is asked before it, what is sent, what is said after it. */
const ORDERS = {
  redrive: {
    label: "Redrive",
    asked: { title: "Redrive this job?", text: "The same payload runs again as a new job, with all its attempts.", action: "Redrive", tone: "primary" },
    send: (target) => post(`retry/${segment(target)}`),
    said: () => "Redriven as a new job, which is shown now.",
  },
  retry: {
    label: "Run now",
    asked: { title: "Run this job now?", text: "It becomes due at once.", action: "Run now", tone: "primary" },
    send: (target) => post(`retry/${segment(target)}`),
    said: () => "The job is due.",
  },
  discard: {
    label: "Discard",
    tone: "danger",
    asked: { title: "Discard this dead letter?", text: "It cannot be redriven any more. Its job stays in the history.", action: "Discard", tone: "danger", typed: "discard" },
    send: (target) => post(`dead-letter/${segment(target)}/discard`),
    said: () => "The dead letter is discarded.",
  },
  "resume-queue": {
    label: "Resume the queue",
    asked: { title: "Resume this queue?", text: "All its jobs that are due run.", action: "Resume", tone: "primary" },
    send: (target) => post(`${segment(target)}/resume`),
    said: () => "The queue is resumed.",
  },
  cancel: {
    label: "Cancel the job",
    tone: "danger",
    asked: { title: "Cancel this job?", text: "It does not run; where it runs, it is asked to stop at its next step.", action: "Cancel the job", tone: "danger" },
    send: (target) => post(`jobs/${segment(target)}/cancel`),
    said: (answer) => (answer.outcome === "requested" ? "The job is asked to stop." : "The job is cancelled."),
  },
};

export function Now({ job, again }) {
  const page = usePage();
  const told = job.diagnosis;
  const said = (text) => html`<span class="text">${inZone(text, page.utc)}</span>`;
  const carryOut = async (name, target) => {
    const order = ORDERS[name];
    if ((await page.confirm(order.asked)) === null) return;
    const answer = await order.send(target);
    page.say(order.said(answer));
    if (answer.created) go("jobs", answer.id);
    else again();
  };
  const place = async () => {
    const values = await page.confirm({
      title: "Change its priority", text: "1 is first, 10 is last.", action: "Change",
      fields: [{ name: "priority", label: "Priority", type: "number", required: true, value: String(job.priority), min: 1 }],
    });
    if (values === null) return;
    await ask("PATCH", `jobs/${segment(job.id)}`, { body: { priority: Number(values.priority) } });
    page.say("The priority is changed.");
    again();
  };
  const steps = told.next;
  const first = steps.find((step) => ORDERS[step.action]);
  const cancels = steps.some((step) => step.action === "cancel");
  return html`<section class="now ${told.tone}" aria-label="State and what to do">
    <p class="headline"><${Badge} value=${told.label} tone=${TONES[told.tone]} /> <strong>${said(told.headline)}</strong></p>
    ${told.why.map((text) => html`<p>${said(text)}</p>`)}
    <h2>What to do now</h2>
    <ol class="steps">${steps.map((step) => html`<li>${said(step.text)} <${Way} step=${step} primary=${step === first} carryOut=${carryOut} fill=${(form) => form.ask(page, job, step)} /></li>`)}</ol>
    <p><strong>To whoever asks:</strong> ${said(told.tell)}.</p>
    ${LIVE.includes(job.state) || job.deadLetterId ? html`<div class="buttons">
      ${["scheduled", "ready"].includes(job.state) ? html`<${Act} run=${place}>Change priority<//>` : null}
      ${LIVE.includes(job.state) && !cancels ? html`<${Act} tone="danger" run=${() => carryOut("cancel", job.id)}>Cancel the job<//>` : null}
      ${job.deadLetterId ? html`<a class="button" href=${link("dead-letters", job.deadLetterId)}>Dead letter: review note</a>` : null}
    </div>` : null}</section>`;
}

/** How a step is taken: a button, a form, a link or a command. */
function Way({ step, primary, carryOut, fill }) {
  const form = FORMS[step.action];
  if (form) return html`<${Act} run=${() => fill(form)}>${form.label}<//>`;
  const order = ORDERS[step.action];
  if (order) return html`<${Act} tone=${primary && order.tone !== "danger" ? "primary" : (order.tone ?? "")} run=${() => carryOut(step.action, step.target)}>${order.label}<//>`;
  const linked = LINKS[step.action]?.(step.target);
  if (linked) return html`<a class="button" href=${linked[1]}>${linked[0]}</a>`;
  const command = COMMANDS[step.action]?.(step.target);
  return command ? html`<code class="whole">${command}</code>` : null;
}
