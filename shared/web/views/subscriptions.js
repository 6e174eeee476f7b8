// What is watched in Microsoft 365, and how well.

import { html, useEffect } from "../html.js";
import { get } from "../api.js";
import { Badge, Choice, Failure, More, Table, Time, usePage } from "../parts.js";
import { usePages } from "../polling.js";
import { go } from "../routing.js";

export function Subscriptions({ place }) {
  const { status = "" } = place.query;
  const page = usePage();
  const pages = usePages((cursor, signal) => get("subscriptions", { status, cursor }, signal), [status], 10);
  useEffect(() => page.onRefresh(pages.again));
  const columns = [
    { title: "Resource", wide: true, cell: (one) => html`<code>${one.resource}</code>` },
    { title: "Changes", cell: (one) => one.changeTypes.replaceAll(",", ", ") },
    { title: "State", cell: (one) => html`<${State} one=${one} />` },
    { title: "Expires", cell: (one) => html`<${Time} at=${one.expiresAt} relative />` },
    { title: "Renewed", cell: (one) => html`<${Time} at=${one.renewedAt} relative />` },
    { title: "Problem", wide: true, cell: (one) => (one.problem ? html`<span class="alarm">${one.problem}</span> <span class="by">since <${Time} at=${one.problemSince} /></span>` : html`<span class="none">–</span>`) },
    { title: "Subscription", cell: (one) => (one.subscriptionId ? html`<code class="id">${one.subscriptionId}</code>` : html`<span class="none">–</span>`) },
  ];
  return html`<div><h1 tabindex="-1">Subscriptions</h1>
    <div class="filters"><${Choice} label="State" value=${status} options=${["", "covered", "uncovered", "failing"].map((one) => [one, one || "all"])} onChange=${(value) => go("subscriptions", null, { status: value })} /></div>
    <${Failure} error=${pages.error} again=${pages.again} />
    ${pages.items ? html`<${Table} caption="Watched resources, last declared first" columns=${columns} rows=${pages.items} empty="Nothing is watched." />` : null}
    <${More} pages=${pages} /></div>`;
}

function State({ one }) {
  if (!one.expiresAt || Date.parse(one.expiresAt) <= Date.now()) return html`<${Badge} value="not covered" tone="bad" />`;
  return one.problem ? html`<${Badge} value="failing" tone="warn" />` : html`<${Badge} value="covered" tone="good" />`;
}
