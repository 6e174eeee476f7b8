// Open dead letters grouped by their error; a group's letters open in place.

import { html, useEffect, useRef } from "../html.js";
import { get } from "../api.js";
import { discardMany, redriveMany, reviewMany } from "../bulk.js";
import { count } from "../format.js";
import { Act, Badge, Failure, More, Time, usePage } from "../parts.js";
import { usePages } from "../polling.js";
import { LetterList } from "./letter_list.js";

const LIST_SECONDS = 5;
// What the API writes in place of what the role may not read; it finds nothing.
const HIDDEN = "•••";
const CLOSED = { in: "", class: "", pattern: "", foreign: "" };

const placeOf = (group) => ({ in: group.queue, class: group.errorClass, pattern: group.pattern, foreign: String(group.foreign) });
const nameOf = (group) => `${group.queue}: ${group.pattern}`;
const isOpened = (group, opened) => Object.entries(placeOf(group)).every(([name, value]) => opened[name] === value);

export function LetterGroups({ answer, errorClass, reviewed, opened, change, again }) {
  const groups = answer.groups.filter((group) => !errorClass || group.errorClass === errorClass);
  return html`<div>${answer.complete ? null : html`<p class="note">Only the newest ${count(answer.counted)} open dead letters are counted here.</p>`}
    ${groups.length === 0 ? html`<p class="empty">No dead letter is open.</p>` : html`<ol class="plain groups" aria-label="Errors, largest first">${groups.map((group) => html`
      <${Group} key=${group.exampleId} group=${group} reviewed=${reviewed} isOpen=${isOpened(group, opened)} change=${change} again=${again} />`)}</ol>`}</div>`;
}

function Group({ group, reviewed, isOpen, change, again }) {
  const page = usePage();
  const helps = group.redriveHelps;
  const name = nameOf(group);
  // What died up to now, and no more: a job that dies again is not ordered again by this.
  const before = new Date(Date.parse(group.lastAt) + 1).toISOString();
  const filter = { queue: group.queue, errorClass: group.errorClass, pattern: group.pattern, foreign: group.foreign, diedBefore: before, ...(reviewed ? { reviewed: reviewed === "true" } : {}) };
  const order = (many, number, which = filter) => async () => {
    if (!(await many(page, number, name, { filter: which }))) return;
    again();
    document.getElementById("groups")?.focus(); // the button goes with its group
  };
  return html`<li class="group ${isOpen ? "open" : ""}">
    <h3><span class="number">${count(group.count)}</span> <${Badge} value=${group.foreign ? "not ours" : group.errorClass} tone="bad" /> ${group.queue} <span class="by">last <${Time} at=${group.lastAt} relative />${group.unreviewed === group.count ? "" : `, ${count(group.unreviewed)} not reviewed`}</span></h3>
    <p class="pattern">${group.pattern}</p>
    ${group.exampleMessage === group.pattern ? null : html`<p class="by text example">For example: ${group.exampleMessage}</p>`}
    <p class="advice">${group.foreign ? `${group.meaning} ` : ""}${group.remedy}</p>
    <div class="buttons">
      <button type="button" class="small" aria-expanded=${isOpen ? "true" : "false"} aria-label=${`${isOpen ? "Hide" : "Show"} the dead letters of ${name}`} onClick=${() => change(isOpen ? CLOSED : placeOf(group))}>${isOpen ? "Hide" : "Show"}</button>
      ${group.foreign ? null : html`<${Act} tone=${helps ? "small primary" : "small"} run=${order(redriveMany, group.count)} label=${`Redrive all of ${name}`}>Redrive all<//>`}
      <${Act} tone=${helps ? "small danger" : "small primary"} run=${order(discardMany, group.count)} label=${`Discard all of ${name}`}>Discard all<//>
      ${group.unreviewed && reviewed !== "true" ? html`<${Act} tone="small" run=${order(reviewMany, group.unreviewed, { ...filter, reviewed: false })} label=${`Review all of ${name}`}>Review all<//>` : null}
    </div>
    ${isOpen ? html`<${Opened} group=${group} reviewed=${reviewed} again=${again} />` : null}</li>`;
}

function Opened({ group, reviewed, again }) {
  const title = useRef(null);
  const { queue, errorClass, foreign } = group;
  const pattern = group.pattern.includes(HIDDEN) ? "" : group.pattern;
  const filters = { queue, errorClass, pattern, foreign, reviewed, status: "open" };
  const pages = usePages((cursor, signal) => get("dead-letter", { ...filters, cursor }, signal), [filters], LIST_SECONDS);
  useEffect(() => {
    title.current.focus({ preventScroll: true });
    title.current.closest(".group").scrollIntoView({ block: "start" });
  }, []);
  return html`<section class="opened" aria-label=${`Dead letters of ${nameOf(group)}`}><h4 tabindex="-1" ref=${title}>Its dead letters</h4>
    <${Failure} error=${pages.error} again=${pages.again} />
    ${pages.items ? html`<${LetterList} items=${pages.items} again=${() => { pages.again(); again(); }} />` : html`<p class="loading" role="status">Loading …</p>`}
    <${More} pages=${pages} /></section>`;
}
