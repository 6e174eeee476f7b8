// Dead letters: by their error, and one by one.

import { html, useEffect, useState } from "../html.js";
import { get, post } from "../api.js";
import { advice } from "../advice.js";
import { count } from "../format.js";
import { Act, Badge, Choice, Failure, Field, JobLink, Loaded, More, Table, Time, usePage } from "../parts.js";
import { useAnswer, usePages } from "../polling.js";
import { askRate, redriveAll } from "../redrive.js";
import { go, link } from "../routing.js";

const LIST_SECONDS = 5;
// What the API writes in place of what the role may not read; it finds nothing.
const HIDDEN = "•••";
const STATES = [["open", "open"], ["redriven", "redriven"], ["discarded", "discarded"], ["all", "all"]];
const REVIEWED = [["", "all"], ["false", "not reviewed"], ["true", "reviewed"]];

export function DeadLetters({ place }) {
  const { queue = "", status = "open", reviewed = "", errorClass = "", pattern = "" } = place.query;
  const change = (more) => go("dead-letters", null, { queue, status: status === "open" ? "" : status, reviewed, errorClass, pattern, ...more });
  const groups = useAnswer((signal) => get("dead-letter/groups", { queue, reviewed }, signal), [queue, reviewed], LIST_SECONDS);
  const filters = { queue, status: status === "all" ? "" : status, reviewed, errorClass, pattern };
  const pages = usePages((cursor, signal) => get("dead-letter", { ...filters, cursor }, signal), [filters], LIST_SECONDS);
  const again = () => { groups.again(); pages.again(); };
  const page = usePage();
  useEffect(() => page.onRefresh(again));
  return html`<div><h1 tabindex="-1">Dead letters</h1>
    <div class="filters">
      <${Field} label="Queue" value=${queue} onChange=${(value) => change({ queue: value })} />
      <${Choice} label="State" value=${status} options=${STATES} onChange=${(value) => change({ status: value === "open" ? "" : value })} />
      <${Choice} label="Review" value=${reviewed} options=${REVIEWED} onChange=${(value) => change({ reviewed: value })} />
      ${pattern || errorClass ? html`<button type="button" onClick=${() => change({ errorClass: "", pattern: "" })}>All errors</button>` : null}
    </div>
    <section aria-labelledby="groups"><h2 id="groups">By error</h2>
      <${Loaded} ...${groups}>${groups.answer ? html`<${Groups} answer=${groups.answer} reviewed=${reviewed} change=${change} again=${again} />` : null}<//></section>
    <section aria-labelledby="letters"><h2 id="letters">${pattern ? "Of this error" : "One by one"}</h2>
      ${pattern ? html`<p class="pattern"><${Badge} value=${errorClass} tone="bad" /> <code>${pattern}</code></p>` : null}
      <${Failure} error=${pages.error} again=${pages.again} />
      ${pages.items ? html`<${Letters} items=${pages.items} again=${again} />` : html`<p class="loading" role="status">Loading …</p>`}
      <${More} pages=${pages} /></section></div>`;
}

function Groups({ answer, reviewed, change, again }) {
  const columns = [
    { title: "Open", number: true, cell: (one) => count(one.count) },
    { title: "Not reviewed", number: true, cell: (one) => count(one.unreviewed) },
    { title: "Queue", name: true, cell: (one) => one.queue },
    { title: "Class", cell: (one) => html`<${Badge} value=${one.errorClass} tone="bad" />` },
    { title: "Error and what to do", wide: true, cell: (one) => html`<span class="text">${one.pattern}</span>${advice(one.errorClass) ? html`<span class="advice">${advice(one.errorClass)[1]}</span>` : null}` },
    { title: "Last", cell: (one) => html`<${Time} at=${one.lastAt} relative />` },
    { title: "Do", cell: (one) => html`<div class="buttons">
      <button type="button" class="small" aria-label=${`Show the dead letters of ${one.queue}: ${one.pattern}`} onClick=${() => change({ queue: one.queue, errorClass: one.errorClass, pattern: one.pattern.includes(HIDDEN) ? "" : one.pattern, status: "" })}>Show</button>
      <${Redrive} group=${one} reviewed=${reviewed} again=${again} /></div>` },
  ];
  return html`<div>${answer.complete ? null : html`<p class="note">Only the newest ${count(answer.counted)} open dead letters are counted here.</p>`}
    <${Table} caption="Open dead letters by queue and error, largest first" columns=${columns} rows=${answer.groups} keyOf=${(one) => one.exampleId} empty="No dead letter is open." /></div>`;
}

function Redrive({ group, reviewed, again }) {
  const page = usePage();
  const run = async () => {
    const rate = await askRate(page, group.count, `${group.queue}: ${group.pattern}`);
    if (rate === null) return;
    // What died up to now, and no more: a job that dies again is not redriven again by this.
    const before = new Date(Date.parse(group.lastAt) + 1).toISOString();
    const filter = { queue: group.queue, errorClass: group.errorClass, pattern: group.pattern, diedBefore: before, ...(reviewed ? { reviewed: reviewed === "true" } : {}) };
    await redriveAll(page, { filter }, rate);
    again();
  };
  return html`<${Act} tone="small primary" run=${run} label=${`Redrive all of ${group.queue}: ${group.pattern}`}>Redrive all<//>`;
}

function Letters({ items, again }) {
  const page = usePage();
  const [chosen, setChosen] = useState(new Set());
  const open = items.filter((one) => one.state === "open" && one.jobId);
  const ids = open.map((one) => one.id).filter((id) => chosen.has(id));
  const choose = (id) => setChosen((before) => {
    const after = new Set(before);
    if (!after.delete(id)) after.add(id);
    return after;
  });
  const run = async () => {
    const rate = await askRate(page, ids.length, "the chosen dead letters");
    if (rate === null) return;
    await redriveAll(page, { ids }, rate);
    setChosen(new Set());
    again();
  };
  const columns = [
    { title: "Choose", cell: (one) => html`<input type="checkbox" aria-label=${`Choose the dead letter of job ${one.jobId ?? one.id}`} disabled=${one.state !== "open" || !one.jobId} checked=${chosen.has(one.id)} onChange=${() => choose(one.id)} />` },
    { title: "Died", cell: (one) => html`<a href=${link("dead-letters", one.id)}><${Time} at=${one.diedAt} relative /></a>` },
    { title: "Queue", name: true, cell: (one) => one.queue },
    { title: "State", cell: (one) => html`<${Badge} value=${one.state} />` },
    { title: "Error", wide: true, cell: (one) => html`<strong>${one.errorClass}</strong> ${one.errorMessage}` },
    { title: "Job", cell: (one) => (one.jobId ? html`<${JobLink} id=${one.jobId} />` : "a message, no job") },
    { title: "Review", wide: true, cell: (one) => (one.reviewNote ? html`<span class="text">${one.reviewNote}</span> <span class="by">by ${one.reviewedBy}</span>` : html`<span class="none">–</span>`) },
  ];
  return html`<div><div class="buttons">
      <button type="button" disabled=${open.length === 0} onClick=${() => setChosen(new Set(ids.length === open.length ? [] : open.slice(0, 500).map((one) => one.id)))}>${ids.length && ids.length === open.length ? "Choose none" : "Choose all shown"}</button>
      ${ids.length ? html`<${Act} tone="primary" run=${run}>Redrive ${count(ids.length)} chosen<//>` : null}</div>
    <${Table} caption="Dead letters, newest first" columns=${columns} rows=${items} empty="No dead letter fits." /></div>`;
}
