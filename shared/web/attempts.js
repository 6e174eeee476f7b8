// A job's attempts, newest first, each call to Graph on a line; what is the same again is said once.

import { html } from "./html.js";
import { seconds } from "./format.js";
import { Badge, Copy, Time } from "./parts.js";

const callsOf = (details) => {
  const found = [...(details.graph_calls ?? []), details.failed_call, isCall(details) ? details : null];
  const known = found.filter((call) => call !== null && typeof call === "object").map((call) => [keyOf(call), call]);
  return [...new Map(known).values()];
};
const isCall = (details) => "method" in details && "path" in details;
const keyOf = (call) => JSON.stringify(Object.entries(call).sort(([one], [other]) => (one < other ? -1 : 1)));
const likeness = (one) => JSON.stringify([one.errorClass, one.message, callsOf(one.details).map(({ method, path, status }) => [method, path, status])]);

/** Rows that follow each other and are alike are one list. */
function runs(rows, alike) {
  const found = [];
  for (const row of rows) {
    if (found.length && alike(found.at(-1)[0]) === alike(row)) found.at(-1).push(row);
    else found.push([row]);
  }
  return found;
}

export function Attempts({ attempts }) {
  if (attempts.length === 0) return html`<p class="empty">None has ended.</p>`;
  const newestFirst = [...attempts].sort((one, other) => other.number - one.number);
  return html`<ol class="attempts">${runs(newestFirst, likeness).map(([newest, ...others]) => html`<li key=${newest.number}>
    <p class="headline"><strong>Attempt ${newest.number}</strong> <${Badge} value=${newest.outcome} tone=${newest.errorClass ? "bad" : "good"} />
      <${Time} at=${newest.startedAt} relative /> <span class="by">took ${tookOf(newest)}, ${newest.worker}</span></p>
    ${newest.errorClass ? html`<p class="text"><strong>${newest.errorClass}</strong> ${newest.message}</p>` : null}
    <${Calls} details=${newest.details} /><${Others} details=${newest.details} />
    ${others.length ? html`<details><summary>${alikeText(others)}</summary><ul class="plain">${others.map((one) => html`<li key=${one.number}>
      <p class="by">Attempt ${one.number}: <${Time} at=${one.startedAt} />, took ${tookOf(one)}</p><${Calls} details=${one.details} /></li>`)}</ul></details>` : null}
  </li>`)}</ol>`;
}

const tookOf = (one) => seconds((Date.parse(one.finishedAt) - Date.parse(one.startedAt)) / 1000);
const alikeText = (others) => (others.length === 1 ? `The same at attempt ${others[0].number}` : `The same at attempts ${others.at(-1).number} to ${others[0].number}`);

function Calls({ details }) {
  const calls = callsOf(details);
  return calls.length === 0 ? null : html`<ul class="calls" aria-label="Calls">${calls.map((call) => html`<li>
    <code>${call.method} ${call.path}</code> <${Badge} value=${call.status ?? "no answer"} tone=${call.status && call.status < 400 ? "good" : "bad"} />
    <${Id} name="request id" id=${call.request_id} /><${Id} name="client request id" id=${call.request_id ? null : call.client_request_id} /></li>`)}</ul>`;
}

const Id = ({ name, id }) => (id ? html`<span class="request">${name} <code class="id">${id}</code> <${Copy} text=${id} what=${name} /></span>` : null);

/** What the attempt keeps beside its calls. */
function Others({ details }) {
  const known = isCall(details) ? [] : Object.entries(details).filter(([name, value]) => !["graph_calls", "failed_call"].includes(name) && value !== null && value !== "");
  return known.length === 0 ? null : html`<dl class="details">${known.map(([name, value]) => html`<div><dt>${name.replaceAll("_", " ")}</dt>
    <dd>${typeof value === "object" ? JSON.stringify(value) : String(value)}</dd></div>`)}</dl>`;
}

const ATTEMPT = /^(attempt \d+) ?(.*)$/s;

/** The timeline with each attempt named once: no start of one that has ended, ends in a row that are alike on one line. */
export function folded(timeline) {
  const lines = timeline.map((one) => {
    const [, number, text] = ["attempt", "started"].includes(one.event) ? ATTEMPT.exec(one.text) ?? [] : [];
    return number === undefined ? one : { ...one, event: number, text: text || "started", ends: one.event === "attempt" };
  });
  const ended = new Set(lines.filter((one) => one.ends).map((one) => one.event));
  const kept = lines.filter((one) => one.ends !== false || !ended.has(one.event));
  return runs(kept, (one) => (one.ends ? one.text : one)).map((found) => {
    if (found.length === 1) return found[0];
    return { ...found.at(-1), event: `attempts ${found[0].event.slice(8)} to ${found.at(-1).event.slice(8)}` };
  });
}
