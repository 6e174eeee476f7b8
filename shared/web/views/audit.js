// Who changed what.

import { html, useEffect } from "../html.js";
import { get } from "../api.js";
import { Failure, Field, More, Table, Time, usePage } from "../parts.js";
import { usePages } from "../polling.js";
import { go, link } from "../routing.js";

export function Audit({ place }) {
  const { who = "", action = "", target = "" } = place.query;
  const page = usePage();
  const change = (more) => go("audit", null, { who, action, target, ...more });
  const pages = usePages((cursor, signal) => get("audit", { who, action, target, cursor }, signal), [who, action, target], 10);
  useEffect(() => page.onRefresh(pages.again));
  const columns = [
    { title: "When", cell: (one) => html`<${Time} at=${one.at} relative />` },
    { title: "Who", name: true, cell: (one) => html`${one.who} <span class="by">${one.kind}, ${one.role}</span>` },
    { title: "What", name: true, cell: (one) => html`<strong>${one.action}</strong>` },
    { title: "Of", cell: (one) => html`<${Target} target=${one.target} />` },
    { title: "Before", wide: true, cell: (one) => html`<${State} state=${one.before} />` },
    { title: "After", wide: true, cell: (one) => html`<${State} state=${one.after} />` },
    { title: "Correlation id", cell: (one) => html`<code class="id">${one.correlationId}</code>` },
  ];
  return html`<div><h1 tabindex="-1">Audit</h1>
    <div class="filters"><${Field} label="Who" value=${who} onChange=${(value) => change({ who: value })} />
      <${Field} label="Action" hint="job.cancel" value=${action} onChange=${(value) => change({ action: value })} />
      <${Field} label="Of" hint="queue:sync" value=${target} onChange=${(value) => change({ target: value })} /></div>
    <${Failure} error=${pages.error} again=${pages.again} />
    ${pages.items ? html`<${Table} caption="Changes, newest first" columns=${columns} rows=${pages.items} empty="No change fits." />` : null}
    <${More} pages=${pages} /></div>`;
}

function Target({ target }) {
  const cut = target.indexOf(":");
  const [kind, name] = [target.slice(0, cut), target.slice(cut + 1)];
  const view = { job: () => link("jobs", name), queue: () => link("jobs", null, { queue: name }), "dead-letter": () => link("dead-letters", name) }[kind];
  return view ? html`<a href=${view()}>${target}</a>` : target;
}

const State = ({ state }) => (state === null ? html`<span class="none">–</span>` : html`<dl class="details">${Object.entries(state).map(([name, value]) => html`
  <div><dt>${name}</dt><dd>${typeof value === "object" ? JSON.stringify(value) : String(value)}</dd></div>`)}</dl>`);
