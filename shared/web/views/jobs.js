// Jobs of a queue, or of all queues where one is looked for.

import { html, useEffect } from "../html.js";
import { get, segment } from "../api.js";
import { Badge, Choice, Failure, Field, JobLink, More, Table, Time, usePage } from "../parts.js";
import { useAnswer, usePages } from "../polling.js";
import { go } from "../routing.js";

const STATES = ["scheduled", "waiting", "ready", "active", "completed", "dead", "cancelled"];
const LIST_SECONDS = 5;

export function Jobs({ place }) {
  const { queue = "", status = "", search = "" } = place.query;
  const queues = useAnswer((signal) => get("stats", {}, signal), ["names"]);
  const names = queues.answer?.queues.map((one) => one.queue) ?? [];
  const change = (more) => go("jobs", null, { queue, status, search, ...more });
  const page = usePage();
  return html`<div><h1 tabindex="-1">Jobs</h1>
    <div class="filters">
      <${Choice} label="Queue" value=${queue} options=${[["", search ? "all queues" : "choose a queue"], ...(names.length ? names : queue ? [queue] : []).map((name) => [name, name])]} onChange=${(value) => change({ queue: value, status: value && status })} />
      ${queue ? html`<${Choice} label="State" value=${status} options=${[["", "all"], ...STATES.map((state) => [state, state])]} onChange=${(value) => change({ status: value })} />` : null}
      <${Field} label="Id, correlation id or key" value=${search} onChange=${(value) => change({ search: value })} />
    </div>
    <${Failure} error=${queues.error} again=${queues.again} />
    ${queue || search ? html`<${Found} key=${queue ? "one" : "all"} queue=${queue} status=${status} search=${search} page=${page} />`
      : html`<p class="empty">Choose a queue, or look for an id, a correlation id or an idempotency key in all of them.</p>`}</div>`;
}

function Found({ queue, status, search, page }) {
  const load = queue
    ? (cursor, signal) => get(`${segment(queue)}/jobs`, { status, search, cursor }, signal)
    : (cursor, signal) => get("jobs", { search, cursor }, signal);
  const pages = usePages(load, [queue, status, search], LIST_SECONDS);
  useEffect(() => page.onRefresh(pages.again));
  const columns = [
    { title: "Job", cell: (job) => html`<${JobLink} id=${job.id} />` },
    ...(queue ? [] : [{ title: "Queue", name: true, cell: (job) => job.queue }]),
    { title: "State", cell: (job) => html`<${Badge} value=${job.state} />` },
    { title: "Ended, or enqueued", cell: (job) => html`<div><${Time} at=${job.at} relative />${job.state === "scheduled" ? html`<div class="by">due <${Time} at=${job.runAt} /></div>` : null}</div>` },
    { title: "Error", wide: true, cell: (job) => (job.errorClass ? html`<span><strong>${job.errorClass}</strong> ${job.errorMessage}</span>` : html`<span class="none">–</span>`) },
    { title: "Correlation id", cell: (job) => (job.correlationId ? html`<a href=${`#/jobs?${new URLSearchParams({ search: job.correlationId })}`}>${job.correlationId}</a>` : html`<span class="none">–</span>`) },
    { title: "Attempt", number: true, cell: (job) => job.attempt },
    { title: "Priority", number: true, cell: (job) => job.priority },
  ];
  return html`<div><${Failure} error=${pages.error} again=${pages.again} />
    ${pages.items === null ? (pages.error ? null : html`<p class="loading" role="status">Loading …</p>`)
      : html`<${Table} caption=${queue ? `Jobs of ${queue}, newest first` : "Jobs of all queues, newest first"} columns=${columns} rows=${pages.items} empty="No job fits." />`}
    <${More} pages=${pages} /></div>`;
}
