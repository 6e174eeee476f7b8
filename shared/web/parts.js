// Pieces that several views show. Whatever comes from the API ends in text nodes.

import { createContext, html, useContext, useEffect, useState } from "./html.js";
import { ago, json, localZone, moment, short } from "./format.js";
import { link } from "./routing.js";

/** {utc, who, say(text, isError), confirm(question), may(role)} of the page. */
export const Page = createContext(null);
export const usePage = () => useContext(Page);
const ROLES = ["Reader", "Operator", "Admin"];
export const isAllowed = (role, wanted) => ROLES.indexOf(role) >= ROLES.indexOf(wanted);

/** An instant: in the page's zone, the other one on hover; how long ago beside it. */
export function Time({ at, relative = false }) {
  const { utc } = usePage();
  if (!at) return html`<span class="none">–</span>`;
  const other = utc ? `${moment(at)} ${localZone}` : `${moment(at, true)} UTC`;
  return html`<time datetime=${at} title=${other}>${moment(at, utc)}${relative ? html`<span class="ago">${ago(at)}</span>` : null}</time>`;
}

const TONES = {
  completed: "good", active: "busy", ready: "plain", scheduled: "plain", waiting: "plain", dead: "bad", cancelled: "mute",
  open: "bad", redriven: "good", discarded: "mute", failed: "bad", replaced: "mute",
  info: "busy", warning: "warn", critical: "bad", paused: "warn", closed: "mute",
};

export const Badge = ({ value, tone }) => html`<span class="badge ${tone ?? TONES[value] ?? "plain"}">${value}</span>`;

/** A dead job that somebody has dealt with is no alarm any more. */
export const JobState = ({ job }) => html`<${Badge} value=${job.label} tone=${LABEL_TONES.find(([start]) => job.label.startsWith(start))?.[1] ?? TONES[job.state]} />`;
const LABEL_TONES = [["dead,", "mute"], ["not delivered", "bad"], ["parked", "bad"], ["blocked", "bad"], ["paused", "warn"]];

/** A button that copies an id; what became of that is said. */
export function Copy({ text, what }) {
  const page = usePage();
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      page.say(`The ${what} is copied.`);
    } catch {
      page.say(`The browser lets nothing be copied here. The ${what} is ${text}`, true);
    }
  };
  return html`<button type="button" class="small" aria-label=${`Copy the ${what} ${text}`} onClick=${copy}>Copy</button>`;
}

export const JobLink = ({ id }) => html`<a class="id" href=${link("jobs", id)} title=${id} aria-label="Job ${id}">${short(id)}</a>`;

const classOf = ({ number, wide, name }) => (number ? "number" : wide ? "wide" : name ? "name" : "");

/** `columns`: {title, cell(row), and what it is: number, wide (running text) or name}; on a phone every row becomes a card. */
export function Table({ caption, columns, rows, keyOf = (row) => row.id, empty = "Nothing here.", isMarked }) {
  if (rows.length === 0) return typeof empty === "string" ? html`<p class="empty">${empty}</p>` : empty;
  return html`<div class="scroll"><table role="table">
    <caption>${caption}</caption>
    <thead role="rowgroup"><tr role="row">${columns.map((column) => html`
      <th role="columnheader" scope="col" class=${classOf(column)}>${column.title}</th>`)}</tr></thead>
    <tbody role="rowgroup">${rows.map((row) => html`
      <tr role="row" key=${keyOf(row)} class=${isMarked?.(row) ? "marked" : ""}>${columns.map((column) => html`
        <td role="cell" data-title=${column.title} class=${classOf(column)}>${column.cell(row)}</td>`)}
      </tr>`)}</tbody>
  </table></div>`;
}

export function Failure({ error, again }) {
  if (!error || error.status === 401) return null;
  return html`<div class="failure" role="alert"><p>${error.message}</p>
    ${error.errors?.length ? html`<ul>${error.errors.map((one) => html`<li><code>${one.field}</code>: ${one.message}</li>`)}</ul>` : null}
    ${again ? html`<button type="button" onClick=${again}>Try again</button>` : null}</div>`;
}

/** What `answer` shows, or that it is on its way. */
export function Loaded({ answer, error, again, children }) {
  return html`<div><${Failure} error=${error} again=${again} />
    ${answer === null ? (error ? null : html`<p class="loading" role="status">Loading …</p>`) : html`<div>${children}</div>`}</div>`;
}

export function More({ pages }) {
  if (pages.items === null) return null;
  return html`<p class="more" role="status"><span>${pages.items.length} shown</span>
    ${pages.more ? html`<button type="button" disabled=${pages.loading} onClick=${pages.more}>${pages.loading ? "Loading …" : "Show more"}</button>` : html`<span>that is all</span>`}</p>`;
}

/** A button that does something to the system; off for those who may not. It keeps the focus while it runs. */
export function Act({ role = "Operator", tone = "", run, label, children }) {
  const page = usePage();
  const [busy, setBusy] = useState(false);
  const allowed = isAllowed(page.who.role, role);
  const act = async () => {
    if (busy) return;
    setBusy(true);
    try {
      await run();
    } catch (error) {
      const fields = (error.errors ?? []).map((one) => `${one.field}: ${one.message}`).join("; ");
      page.say(fields || error.message, true);
    }
    setBusy(false);
  };
  return html`<button type="button" class=${tone} aria-label=${label} disabled=${!allowed} aria-busy=${busy ? "true" : "false"}
    title=${allowed ? null : `This takes the role ${role}.`} onClick=${act}>${children}</button>`;
}

/** A text field that reports what is typed when Enter is pressed or it is left. */
export function Field({ label, value = "", onChange, hint }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const give = () => text.trim() !== value && onChange(text.trim());
  const id = idOf(label);
  return html`<div class="field"><label for=${id}>${label}</label><input id=${id} type="search" value=${text} placeholder=${hint} autocomplete="off" spellcheck="false"
    onInput=${(event) => setText(event.target.value)} onBlur=${give} onSearch=${give} onKeyDown=${(event) => event.key === "Enter" && give()} /></div>`;
}

/** A date and time in the page's zone; `value` and what is reported are instants. */
export function Moment({ label, value = "", onChange }) {
  const { utc } = usePage();
  const shown = value ? moment(value, utc).replace(" ", "T").slice(0, 16) : "";
  const give = (text) => onChange(text ? new Date(utc ? `${text}Z` : text).toISOString() : "");
  return html`<div class="field"><label for=${idOf(label)}>${label}</label><input id=${idOf(label)} type="datetime-local" value=${shown}
    onChange=${(event) => give(event.target.value)} /></div>`;
}

const idOf = (label) => `field-${label.toLowerCase().replaceAll(/\W+/g, "-")}`;

/** `options`: [value, text]. */
export const Choice = ({ label, value = "", options, onChange }) => html`<div class="field"><label for=${idOf(label)}>${label}</label>
  <select id=${idOf(label)} value=${value} onChange=${(event) => onChange(event.target.value)}>${options.map(([option, text]) => html`
    <option value=${option} selected=${option === value}>${text}</option>`)}</select></div>`;

export const Facts = ({ facts }) => html`<dl class="facts">${facts.filter(([, value]) => value !== null && value !== false && value !== undefined && value !== "").map(([name, value]) => html`
  <div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

export const Json = ({ value, label }) => html`<pre class="json" tabindex="0" role="region" aria-label=${label}>${json(value)}</pre>`;
