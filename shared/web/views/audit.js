// Who changed what.

import { html, useEffect } from "../html.js";
import { get } from "../api.js";
import { short } from "../format.js";
import { Failure, Field, More, Table, Time, usePage } from "../parts.js";
import { usePages } from "../polling.js";
import { go, link } from "../routing.js";

const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i;

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
    { title: "Change", wide: true, cell: (one) => html`<${Change} before=${one.before ?? {}} after=${one.after ?? {}} />` },
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
  return view ? html`<a href=${view()} title=${target}>${kind}:${UUID.test(name) ? short(name) : name}</a>` : target;
}

const written = (value) => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

/** Each field once: as it was → as it is. */
function Change({ before, after }) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  if (names.length === 0) return html`<span class="none">–</span>`;
  const change = (name) => {
    const [was, is] = [before, after].map((state) => (name in state ? written(state[name]) : null));
    return was === null || is === null || was === is ? is ?? was : `${was} → ${is}`;
  };
  return html`<dl class="details">${names.map((name) => html`<div><dt>${name}</dt><dd>${change(name)}</dd></div>`)}</dl>`;
}
