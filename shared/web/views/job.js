// One job: what happened to it, and what to do now.

import { html, useEffect, useState } from "../html.js";
import { get, segment } from "../api.js";
import { Attempts, folded } from "../attempts.js";
import { Badge, Facts, JobLink, Json, Loaded, Table, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";
import { link } from "../routing.js";
import { Now } from "./now.js";

const LIVE = ["scheduled", "waiting", "ready", "active"];

export function Job({ item }) {
  const page = usePage();
  const [ended, setEnded] = useState(false);
  const found = useAnswer((signal) => get(`jobs/${segment(item)}`, {}, signal), [item], ended ? 30 : 2);
  useEffect(() => page.onRefresh(found.again), []);
  useEffect(() => setEnded(found.answer !== null && !LIVE.includes(found.answer.state)), [found.answer?.state]);
  return html`<div><p class="crumbs"><a href=${link("jobs", null, { queue: found.answer?.queue })}>${found.answer ? `Jobs of ${found.answer.queue}` : "Jobs"}</a></p>
    <h1 tabindex="-1">Job <code class="whole">${item}</code></h1>
    <${Loaded} ...${found}>${found.answer ? html`<${Shown} job=${found.answer} again=${found.again} />` : null}<//></div>`;
}

function Shown({ job, again }) {
  return html`<div><${Internal} job=${job} /><${Now} job=${job} again=${again} />
    <section><h2>Facts</h2><${Facts} facts=${factsOf(job)} /></section>
    <${Payload} job=${job} />
    <section><h2>Attempts</h2><${Attempts} attempts=${job.attempts} /></section>
    ${job.deliveryFailures.length ? html`<section><h2>Not delivered</h2><${Failures} failures=${job.deliveryFailures} /></section>` : null}
    <section><h2>Timeline</h2><ol class="timeline">${folded(job.timeline).map((one) => html`
      <li><${Time} at=${one.at} /> <strong>${one.event}</strong> <span class="text">${one.text}</span>${one.by ? html` <span class="by">by ${one.by}</span>` : null}</li>`)}</ol></section>
    <${Related} job=${job} />
    ${job.result || job.progress ? html`<section><h2>${job.result ? "Result" : "Progress"}</h2>
      ${job.payloadMasked ? html`<p class="note">What is no id or count is hidden: it takes the role Admin.</p>` : null}<${Json} value=${job.result ?? job.progress} label="Result" /></section>` : null}</div>`;
}

/** What the system made for itself is easily taken for the message that it is about. */
function Internal({ job }) {
  if (!job.internal) return null;
  const message = job.related.find((one) => one.relation === "about");
  return html`<p class="note"><strong>An internal job:</strong> the system made it for itself, it is nobody’s message.
    ${message ? html` It is about <a href=${link("jobs", message.id)}>this one</a>.` : null}</p>`;
}

function factsOf(job) {
  return [
    ["Queue", html`<a href=${link("jobs", null, { queue: job.queue })}>${job.queue}</a>`],
    ["Priority", String(job.priority)],
    ["Attempts begun", String(job.attempt)],
    ["Enqueued", html`<${Time} at=${job.enqueuedAt} relative />`],
    ["Due", LIVE.includes(job.state) && html`<${Time} at=${job.runAt} relative />`],
    ["Ended", job.finishedAt && html`<${Time} at=${job.finishedAt} relative />`],
    ["Expires", job.expiresAt && html`<${Time} at=${job.expiresAt} relative />`],
    ["Asked to stop", job.stopRequestedAt && html`<${Time} at=${job.stopRequestedAt} relative />`],
    ["Worker", job.leasedBy],
    ["Lease until", job.leaseUntil && html`<${Time} at=${job.leaseUntil} relative />`],
    ["Correlation id", job.correlationId && html`<a href=${link("jobs", null, { search: job.correlationId })}>${job.correlationId}</a>`],
    ["Idempotency key", job.idempotencyKey],
    ["Lane", job.lane],
    ["Limit key", job.limitKey && html`<a href=${link("jobs", null, { search: job.limitKey })}>${job.limitKey}</a>`],
  ];
}

function Payload({ job }) {
  const [open, setOpen] = useState(false);
  return html`<section><h2>Payload</h2>
    ${job.payloadMasked ? html`<p class="note">Its values are hidden: they take the role Admin.</p>`
      : html`<button type="button" aria-expanded=${open ? "true" : "false"} onClick=${() => setOpen(!open)}>${open ? "Hide the payload" : "Reveal the payload"}</button>`}
    ${open || job.payloadMasked ? html`<${Json} value=${job.payload} label="Payload" />` : null}</section>`;
}

function Failures({ failures }) {
  const columns = [
    { title: "Recipient", cell: (one) => one.recipient ?? "unknown" },
    { title: "Status", cell: (one) => one.status ?? "–" },
    { title: "What their server said", wide: true, cell: (one) => one.diagnostic ?? "–" },
    { title: "Reported", cell: (one) => html`<${Time} at=${one.reportedAt} />` },
  ];
  return html`<${Table} caption="Whom the mail did not reach" columns=${columns} rows=${failures} keyOf=${(one) => `${one.recipient} ${one.reportedAt}`} />`;
}

const RELATIONS = { about: "it is about", redriveOf: "this is a redrive of", redrivenAs: "redriven as", dependsOn: "waits for", dependent: "waits for this", batch: "same batch" };

function Related({ job }) {
  const columns = [
    { title: "Relation", cell: (one) => RELATIONS[one.relation] ?? one.relation },
    { title: "Job", cell: (one) => html`<${JobLink} id=${one.id} />` },
    { title: "Queue", name: true, cell: (one) => one.queue ?? "–" },
    { title: "State", cell: (one) => (one.state ? html`<${Badge} value=${one.state} />` : "no longer kept") },
  ];
  return html`<section><h2>Related jobs</h2>
    ${job.batch ? html`<p>Batch of ${job.batch.total}: ${job.batch.completed} completed, ${job.batch.dead} dead, ${job.batch.cancelled} cancelled, ${job.batch.pending} to come.
      ${job.batch.callbackId ? html` Its callback: <${JobLink} id=${job.batch.callbackId} />` : null}</p>` : null}
    <${Table} caption="Jobs that this one has to do with" columns=${columns} rows=${job.related} keyOf=${(one) => `${one.relation} ${one.id}`} empty="No other job has to do with it." /></section>`;
}
