// How full each queue's limits are now.

import { html, useEffect } from "../html.js";
import { get, segment } from "../api.js";
import { count, seconds } from "../format.js";
import { Loaded, Table, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";

const NONE = html`<span class="none">none</span>`;

export function Limits() {
  const page = usePage();
  const found = useAnswer(loadAll, [], 5);
  useEffect(() => page.onRefresh(found.again), []);
  const columns = [
    { title: "Queue", name: true, cell: (one) => one.queue },
    { title: "Rate", cell: (one) => (one.rate ? html`<${Fill} used=${one.usedInWindow} of=${one.rate.limit} what=${`requests in ${seconds(one.rate.windowSeconds)}`} />` : NONE) },
    { title: "At once", cell: (one) => (one.concurrency ? html`<${Fill} used=${one.inUse} of=${one.concurrency} what="jobs" />` : NONE) },
    { title: "Each key", cell: (one) => html`${one.keyRate ? html`<span>${count(one.keyRate.limit)} in ${seconds(one.keyRate.windowSeconds)}</span>` : null}
      ${one.keyConcurrency ? html`<span> ${count(one.keyConcurrency)} at once</span>` : null}${one.keyRate || one.keyConcurrency ? null : NONE}` },
    { title: "Fullest keys", wide: true, cell: (one) => (one.keys.length ? html`<ul class="plain">${one.keys.slice(0, 5).map((key) => html`<li><code>${key.key}</code> ${count(key.usedInWindow)} in the window, ${count(key.inUse)} in use${key.blockedUntil ? html`, blocked until <${Time} at=${key.blockedUntil} />` : null}</li>`)}</ul>` : html`<span class="none">–</span>`) },
    { title: "Blocked until", cell: (one) => html`<${Time} at=${one.blockedUntil} />` },
  ];
  return html`<div><h1 tabindex="-1">Limits</h1>
    <p class="note">Limits are changed by the admin API (PUT {queue}/limits) or ./dev q.</p>
    <${Loaded} ...${found}>${found.answer ? html`<${Table} caption="Limits of each queue, and how full they are now" columns=${columns} rows=${found.answer} keyOf=${(one) => one.queue} />` : null}<//></div>`;
}

async function loadAll(signal) {
  const { queues } = await get("stats", {}, signal);
  return Promise.all(queues.map((one) => get(`${segment(one.queue)}/limits`, {}, signal)));
}

const Fill = ({ used, of, what }) => html`<span class="fill"><meter min="0" max=${of} high=${of * 0.9} value=${Math.min(used, of)} aria-label=${what}></meter>
  <span>${count(used)} of ${count(of)} ${what}</span></span>`;
