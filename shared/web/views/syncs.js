// Rounds that bring mailboxes, calendars, contacts and drives up to date.

import { html, useEffect } from "../html.js";
import { get } from "../api.js";
import { count, seconds } from "../format.js";
import { Badge, Choice, Failure, Field, JobLink, More, Table, Time, usePage } from "../parts.js";
import { usePages } from "../polling.js";
import { go } from "../routing.js";

const KINDS = ["", "messages", "emails", "calendar", "contacts", "files"];

export function Syncs({ place }) {
  const { resourceType = "", account = "" } = place.query;
  const page = usePage();
  const change = (more) => go("syncs", null, { resourceType, account, ...more });
  const pages = usePages((cursor, signal) => get("syncs", { resourceType, account, cursor }, signal), [resourceType, account], 5);
  useEffect(() => page.onRefresh(pages.again));
  const columns = [
    { title: "Started", cell: (one) => html`<${Time} at=${one.startedAt} relative />` },
    { title: "What", name: true, cell: (one) => `${one.resourceType} (${one.kind})` },
    { title: "Account", name: true, cell: (one) => one.account },
    { title: "Outcome", cell: (one) => html`<${Badge} value=${one.outcome ?? "under way"} tone=${one.outcome ? null : "busy"} />` },
    { title: "Took", number: true, cell: (one) => (one.finishedAt ? seconds((Date.parse(one.finishedAt) - Date.parse(one.startedAt)) / 1000) : "–") },
    { title: "New", number: true, cell: (one) => count(one.createdCount) },
    { title: "Changed", number: true, cell: (one) => count(one.updatedCount) },
    { title: "Deleted", number: true, cell: (one) => count(one.deletedCount) },
    { title: "Pages", number: true, cell: (one) => count(one.pages) },
    { title: "Job", cell: (one) => (one.jobId ? html`<${JobLink} id=${one.jobId} />` : html`<span class="none">–</span>`) },
    { title: "Error", wide: true, cell: (one) => (one.errorMessage ? html`<span class="alarm">${one.errorMessage}</span>` : html`<span class="none">–</span>`) },
  ];
  return html`<div><h1 tabindex="-1">Syncs</h1>
    <div class="filters"><${Choice} label="What" value=${resourceType} options=${KINDS.map((kind) => [kind, kind || "all"])} onChange=${(value) => change({ resourceType: value })} />
      <${Field} label="Account" value=${account} onChange=${(value) => change({ account: value })} /></div>
    <${Failure} error=${pages.error} again=${pages.again} />
    ${pages.items ? html`<${Table} caption="Rounds, last begun first" columns=${columns} rows=${pages.items} empty="No round fits." />` : null}
    <${More} pages=${pages} /></div>`;
}
