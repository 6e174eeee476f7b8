// Jobs of a queue or of all, by state, error and time; or by what somebody has of one.

import { html, useEffect, useRef } from "../html.js";
import { get, segment } from "../api.js";
import { Choice, Failure, Field, JobLink, JobState, More, Moment, Table, Time, usePage } from "../parts.js";
import { useAnswer, usePages } from "../polling.js";
import { go, link } from "../routing.js";

const STATES = ["scheduled", "waiting", "ready", "active", "completed", "dead", "cancelled"];
const CLASSES = ["validation", "auth", "rate-limit", "network", "timeout", "uncertain", "worker-lost", "unknown", "expired", "dependency"];
const LIST_SECONDS = 5;

export function Jobs({ place }) {
  const { queue = "", status = "", search = "", errorClass = "", from = "", to = "" } = place.query;
  const queues = useAnswer((signal) => get("stats", {}, signal), ["names"]);
  const names = queues.answer?.queues.map((one) => one.queue) ?? [];
  const change = (more) => go("jobs", null, { queue, status, search, errorClass, from, to, ...more });
  const page = usePage();
  return html`<div><h1 tabindex="-1">Jobs</h1>
    <div class="filters">
      <${Field} label="Find" value=${search} hint="chat, recipient, id …" onChange=${(value) => change({ search: value })} />
      <${Choice} label="Queue" value=${queue} options=${[["", "all queues"], ...(names.length ? names : queue ? [queue] : []).map((name) => [name, name])]} onChange=${(value) => change({ queue: value })} />
      <${Choice} label="State" value=${status} options=${[["", "all"], ...STATES.map((state) => [state, state])]} onChange=${(value) => change({ status: value, errorClass: value && value !== "dead" ? "" : errorClass })} />
      <${Choice} label="Died of" value=${errorClass} options=${[["", "anything"], ...CLASSES.map((name) => [name, name])]} onChange=${(value) => change({ errorClass: value, status: value ? "dead" : status })} />
      <${Moment} label="From" value=${from} onChange=${(value) => change({ from: value })} />
      <${Moment} label="To" value=${to} onChange=${(value) => change({ to: value })} />
    </div>
    <${Failure} error=${queues.error} again=${queues.again} />
    <${Found} key=${queue ? "one" : "all"} filter=${{ queue, status, search, errorClass, from, to }} page=${page} /></div>`;
}

/** What a search takes, where it finds nothing. */
const Nothing = ({ search }) => html`<div class="empty"><p>No job fits.</p>${search ? html`<p>A search takes a job’s id or its beginning, a correlation id, an idempotency key, a chat, channel or mailbox, a recipient or sender (an address or user id, as a whole), a message id, or a Graph request id.</p>
  <p>Jobs are kept for 30 days after their end. An enqueue that was refused is not stored. A job that has not ended is not found by its recipients: choose its queue and state.</p>` : null}</div>`;

function Found({ filter, page }) {
  const { queue, search, ...rest } = filter;
  const path = queue ? `${segment(queue)}/jobs` : "jobs";
  const pages = usePages((cursor, signal) => get(path, { search, ...rest, cursor }, signal), [filter], LIST_SECONDS);
  useEffect(() => page.onRefresh(pages.again));
  useOnlyHit(pages, search, !queue && Object.values(rest).every((value) => !value));
  const columns = [
    { title: "Job", cell: (job) => html`<${JobLink} id=${job.id} />` },
    ...(queue ? [] : [{ title: "Queue", name: true, cell: (job) => job.queue }]),
    { title: "State", cell: (job) => html`<${JobState} job=${job} />` },
    { title: "Ended, or enqueued", cell: (job) => html`<div><${Time} at=${job.at} relative />${job.state === "scheduled" ? html`<div class="by">due <${Time} at=${job.runAt} /></div>` : null}</div>` },
    { title: "Error", wide: true, cell: (job) => (job.errorClass ? html`<span><strong>${job.errorClass}</strong> ${job.errorMessage}</span>` : html`<span class="none">–</span>`) },
    { title: "Correlation id", cell: (job) => (job.correlationId ? html`<a href=${`#/jobs?${new URLSearchParams({ search: job.correlationId })}`}>${job.correlationId}</a>` : html`<span class="none">–</span>`) },
    { title: "Attempt", number: true, cell: (job) => job.attempt },
    { title: "Priority", number: true, cell: (job) => job.priority },
  ];
  return html`<div><${Failure} error=${pages.error} again=${pages.again} />
    ${pages.items?.length && mayBePerson(search) ? html`<p class="note">Messages to ${search.trim()} that have not ended are not found by their recipient: choose their queue and state for those.</p>` : null}
    ${pages.items === null ? (pages.error ? null : html`<p class="loading" role="status">Loading …</p>`)
      : html`<${Table} caption=${queue ? `Jobs of ${queue}, newest first` : "Jobs of all queues, newest first"} columns=${columns} rows=${pages.items} empty=${html`<${Nothing} search=${search} />`} />`}
    <${More} pages=${pages} /></div>`;
}

const ADDRESS = /^[^\s<>:@]+@[^\s<>:@]+$/;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** An address or a user id, by its looks: of a recipient's messages only those that have ended are found. */
const mayBePerson = (search) => ADDRESS.test(search.trim()) || ID.test(search.trim());

/** Whether the text is what the job itself is called by, and not one of its people. ./dev q (local/q/search.py) decides alike. */
function names(job, search) {
  const text = search.trim().toLowerCase();
  const own = [job.id, job.deadLetterId, job.correlationId, job.idempotencyKey].some((name) => name?.toLowerCase() === text);
  const again = JSON.stringify(job.timeline.filter((one) => one.event === "job.again").map((one) => one.text));
  const calls = ID.test(text) ? JSON.stringify(job.attempts) : "";
  return own || (job.limitKey ?? "").toLowerCase().endsWith(`:${text}`) || `${again}${calls}`.toLowerCase().includes(text);
}

/** A search that finds one message, with its redrives, shows it at once: the newest of them, which tells of the others.
 * Not what was found by a person, who may have newer ones under way. */
function useOnlyHit(pages, search, isPlain) {
  const looked = useRef(null);
  useEffect(() => {
    if (pages.items === null || looked.current === search) return;
    looked.current = search;
    const messages = new Set(pages.items.map((job) => job.redriveOf ?? job.id));
    if (!search || !isPlain || messages.size !== 1 || pages.more !== null) return;
    const [{ id }] = pages.items;
    const open = () => looked.current === search && location.replace(link("jobs", id));
    if (!mayBePerson(search)) open();
    else get(`jobs/${segment(id)}`).then((job) => names(job, search) && open(), () => {});
  }, [pages.items, search]);
  useEffect(() => () => { looked.current = null; }, []);
}
