// What stands around every view: head, search, navigation; and which views there are.

import { html, useState } from "./html.js";
import { get } from "./api.js";
import { localZone } from "./format.js";
import { useAnswer } from "./polling.js";
import { go, link } from "./routing.js";
import { Alert } from "./views/alert.js";
import { Alerts } from "./views/alerts.js";
import { Audit } from "./views/audit.js";
import { DeadLetters } from "./views/dead_letters.js";
import { Job } from "./views/job.js";
import { Jobs } from "./views/jobs.js";
import { Letter } from "./views/letter.js";
import { Limits } from "./views/limits.js";
import { Overview } from "./views/overview.js";
import { Report } from "./views/report.js";
import { Reports } from "./views/reports.js";
import { Schedules } from "./views/schedules.js";
import { Subscriptions } from "./views/subscriptions.js";
import { Syncs } from "./views/syncs.js";
import { Thresholds } from "./views/thresholds.js";

const Nowhere = () => html`<div><h1 tabindex="-1">There is no such view</h1><p><a href=${link("overview")}>Overview</a></p></div>`;

export const VIEWS = {
  overview: { title: "Overview", shows: Overview },
  jobs: { title: "Jobs", shows: Jobs, showsOne: Job },
  "dead-letters": { title: "Dead letters", shows: DeadLetters, showsOne: Letter },
  alerts: { title: "Alerts", shows: Alerts, showsOne: Alert },
  thresholds: { title: "Thresholds", shows: Thresholds },
  schedules: { title: "Schedules", shows: Schedules },
  limits: { title: "Limits", shows: Limits },
  subscriptions: { title: "Subscriptions", shows: Subscriptions },
  syncs: { title: "Syncs", shows: Syncs },
  reports: { title: "Reports", shows: Reports, showsOne: Report },
  audit: { title: "Audit", shows: Audit },
  nowhere: { title: "Nothing here", shows: Nowhere },
};

export function Header({ who, leave, utc, setUtc, help }) {
  const search = (event) => {
    event.preventDefault();
    const text = event.target.elements.search.value.trim();
    if (text) go("jobs", null, { search: text });
  };
  return html`<header>
    <a class="brand" href=${link("overview")}>Fleet Queue</a>
    <form role="search" onSubmit=${search}><input id="search" name="search" type="search" autocomplete="off" spellcheck="false"
      aria-label="Find a message by id, chat, mailbox, recipient or what else somebody has of it" placeholder="Id, chat, mailbox, recipient …" /></form>
    <div class="tools">
      <button type="button" class="quiet" aria-pressed=${utc ? "true" : "false"} onClick=${() => setUtc(!utc)} title="Switch between local time and UTC">${utc ? "UTC" : localZone}</button>
      <button type="button" class="quiet" onClick=${help} aria-label="Keys and words">?</button>
      <span class="who" title=${`signed in by ${who.kind}`}>${who.name} · ${who.role}</span>
      ${who.kind === "key" ? html`<button type="button" class="quiet" onClick=${leave}>Sign out</button>` : null}
    </div></header>`;
}

export function Navigation({ place }) {
  const [open, setOpen] = useState(false);
  const { answer } = useAnswer((signal) => get("stats", {}, signal), ["navigation"], 10);
  const alerts = answer ? answer.openAlerts.warning + answer.openAlerts.critical : 0;
  const letters = answer ? answer.queues.reduce((sum, queue) => sum + queue.deadLetters, 0) : 0;
  const counts = { alerts, "dead-letters": letters };
  return html`<nav aria-label="Views">
    <button type="button" class="menu" aria-expanded=${open ? "true" : "false"} aria-controls="views" onClick=${() => setOpen(!open)}>${VIEWS[place.view]?.title ?? "Views"} <span aria-hidden="true">▾</span>
      ${alerts ? html`<span class="count">${alerts} ${alerts === 1 ? "alert" : "alerts"}</span>` : null}${letters ? html` <span class="count">${letters} dead</span>` : null}</button>
    <ul id="views" class=${open ? "open" : ""}>${Object.entries(VIEWS).filter(([name]) => name !== "nowhere").map(([name, view]) => html`
      <li><a href=${link(name)} aria-current=${name === place.view ? "page" : null} onClick=${() => setOpen(false)}>${view.title}
        ${counts[name] ? html`<span class="count" aria-label="${counts[name]} open">${counts[name]}</span>` : null}</a></li>`)}</ul>
  </nav>`;
}
