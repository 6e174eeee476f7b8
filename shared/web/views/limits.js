// How full each queue's limits are now, and other limits.

import { html, useEffect } from "../html.js";
import { ask, get, segment } from "../api.js";
import { count, seconds } from "../format.js";
import { Act, Loaded, Table, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";
import { link } from "../routing.js";

const NONE = html`<span class="none">none</span>`;

export function Limits({ place }) {
  const page = usePage();
  const { queue = "" } = place.query;
  const found = useAnswer((signal) => load(queue, signal), [queue], 5);
  useEffect(() => page.onRefresh(found.again));
  const columns = [
    { title: "Queue", name: true, cell: (one) => html`<a href=${link("jobs", null, { queue: one.queue })}>${one.queue}</a>${one.blockedUntil ? html`<strong class="alarm advice">closed until <${Time} at=${one.blockedUntil} /></strong>` : null}` },
    { title: "Rate", cell: (one) => (one.rate ? html`<${Fill} used=${one.usedInWindow} of=${one.rate.limit} what=${`requests in ${seconds(one.rate.windowSeconds)}`} />` : NONE) },
    { title: "At once", cell: (one) => (one.concurrency ? html`<${Fill} used=${one.inUse} of=${one.concurrency} what="jobs" />` : NONE) },
    { title: "Each key", cell: (one) => html`${one.keyRate ? html`<span>${count(one.keyRate.limit)} in ${seconds(one.keyRate.windowSeconds)}</span>` : null}
      ${one.keyConcurrency ? html`<span> ${count(one.keyConcurrency)} at once</span>` : null}${one.keyRate || one.keyConcurrency ? null : NONE}` },
    { title: "Keys: closed ones, then the fullest", wide: true, cell: (one) => (one.keys.length ? html`<ul class="plain">${one.keys.slice(0, 5).map((key) => html`<li><code>${key.key}</code> ${count(key.usedInWindow)} in the window, ${count(key.inUse)} in use${key.blockedUntil ? html`<strong class="alarm">, closed until <${Time} at=${key.blockedUntil} /></strong>` : null}</li>`)}</ul>` : html`<span class="none">–</span>`) },
    { title: "Changed", cell: (one) => (one.changedAt ? html`<${Time} at=${one.changedAt} relative />` : html`<span class="none">built in</span>`) },
    { title: "Do", cell: (one) => html`<${Actions} one=${one} again=${found.again} />` },
  ];
  return html`<div><h1 tabindex="-1">Limits</h1>
    ${queue ? html`<p><a href=${link("limits")}>All queues</a></p>` : null}
    <${Loaded} ...${found}>${found.answer ? html`<${Table} caption="Limits of each queue, and how full they are now" columns=${columns} rows=${found.answer} keyOf=${(one) => one.queue} />` : null}<//></div>`;
}

async function load(queue, signal) {
  const names = queue ? [queue] : (await get("stats", {}, signal)).queues.map((one) => one.queue);
  return Promise.all(names.map((name) => get(`${segment(name)}/limits`, {}, signal)));
}

const Fill = ({ used, of, what }) => html`<span class="fill"><meter min="0" max=${of} high=${of * 0.9} value=${Math.min(used, of)} aria-label=${what}></meter>
  <span>${count(used)} of ${count(of)} ${what}</span></span>`;

const rateText = (rate) => (rate ? `${count(rate.limit)} in ${seconds(rate.windowSeconds)}` : "none");
const numberText = (value) => (value === null ? "none" : count(value));
const number = (text) => (text.trim() === "" ? null : Number(text));

/** `name` of a rate has two fields; both empty: none. */
function rateOf(values, name) {
  const [limit, windowSeconds] = [number(values[`${name}.limit`]), number(values[`${name}.windowSeconds`])];
  return limit === null && windowSeconds === null ? null : { ...(limit === null ? {} : { limit }), ...(windowSeconds === null ? {} : { windowSeconds }) };
}

function fieldsOf(one) {
  const own = one.builtIn;
  const field = (name, label, value, builtIn) => ({ name, label, type: "number", value: value === null || value === undefined ? "" : String(value), note: `built in: ${builtIn}` });
  return [
    field("rate.limit", "Requests", one.rate?.limit, rateText(own.rate)),
    field("rate.windowSeconds", "in so many seconds", one.rate?.windowSeconds, rateText(own.rate)),
    field("concurrency", "Jobs at once", one.concurrency, numberText(own.concurrency)),
    field("jobCost", "Requests that a job takes", one.jobCost, numberText(own.jobCost)),
    field("keyRate.limit", "Jobs of each key", one.keyRate?.limit, rateText(own.keyRate)),
    field("keyRate.windowSeconds", "in so many seconds, of each key", one.keyRate?.windowSeconds, rateText(own.keyRate)),
    field("keyConcurrency", "Jobs of each key at once", one.keyConcurrency, numberText(own.keyConcurrency)),
  ];
}

function Actions({ one, again }) {
  const page = usePage();
  const path = `${segment(one.queue)}/limits`;
  const change = () => page.confirm({
    title: `Change the limits of ${one.queue}?`, action: "Change", fields: fieldsOf(one),
    text: "They hold at once, for every instance. An empty field is no limit. Above Microsoft's own limits its answers become 429.",
    run: async (values) => {
      const body = {
        rate: rateOf(values, "rate"), concurrency: number(values.concurrency), keyRate: rateOf(values, "keyRate"),
        keyConcurrency: number(values.keyConcurrency), jobCost: number(values.jobCost) ?? 1,
      };
      await ask("PUT", path, { body });
      page.say(`${one.queue} has other limits.`);
      again();
    },
  });
  const reset = () => page.confirm({
    title: `Reset the limits of ${one.queue}?`, action: "Reset",
    text: `Rate ${rateText(one.builtIn.rate)}, at once ${numberText(one.builtIn.concurrency)}, each key ${rateText(one.builtIn.keyRate)} and ${numberText(one.builtIn.keyConcurrency)} at once.`,
    run: async () => {
      await ask("DELETE", path);
      page.say(`${one.queue} has its built-in limits.`);
      again();
    },
  });
  return html`<div class="buttons"><${Act} role="Admin" tone="small" run=${change} label=${`Change the limits of ${one.queue}`}>Change<//>
    ${one.changedAt ? html`<${Act} role="Admin" tone="small" run=${reset} label=${`Reset the limits of ${one.queue}`}>Reset<//>` : null}</div>`;
}
