// What was or is wrong.

import { html, useEffect } from "../html.js";
import { get, post, segment } from "../api.js";
import { count } from "../format.js";
import { Act, Badge, Choice, Failure, More, Table, Time, usePage } from "../parts.js";
import { usePages } from "../polling.js";
import { go, link } from "../routing.js";

const LEVELS = [["", "all"], ["critical", "critical"], ["warning", "warning"], ["info", "info"]];

export function Alerts({ place }) {
  const { status = "open", level = "" } = place.query;
  const page = usePage();
  const change = (more) => go("alerts", null, { status: status === "open" ? "" : status, level, ...more });
  const pages = usePages((cursor, signal) => get("alerts", { status: status === "all" ? "" : status, level, cursor }, signal), [status, level], 5);
  useEffect(() => page.onRefresh(pages.again));
  const columns = [
    { title: "Level", cell: (one) => html`<${Badge} value=${one.level} tone=${one.resolvedAt ? "mute" : null} />` },
    { title: "What, and what to do", wide: true, cell: (one) => html`<a href=${link("alerts", one.id)}><strong class="text">${one.title}</strong></a>${one.resolvedAt ? null : html`<span class="advice text">${one.remedy}</span>`}` },
    { title: "Opened", cell: (one) => html`<${Time} at=${one.openedAt} relative />` },
    { title: "Times", number: true, cell: (one) => count(one.occurrences) },
    { title: "State", cell: stateOf },
    { title: "Do", cell: (one) => (one.resolvedAt || one.acknowledgedAt ? null : html`<${Acknowledge} alert=${one} again=${pages.again} />`) },
  ];
  return html`<div><h1 tabindex="-1">Alerts</h1>
    <div class="filters"><${Choice} label="State" value=${status} options=${[["open", "open"], ["resolved", "resolved"], ["all", "all"]]} onChange=${(value) => change({ status: value === "open" ? "" : value })} />
      <${Choice} label="Level" value=${level} options=${LEVELS} onChange=${(value) => change({ level: value })} /></div>
    <${Failure} error=${pages.error} again=${pages.again} />
    ${pages.items ? html`<${Table} caption="Alerts, newest first" columns=${columns} rows=${pages.items} empty=${status === "open" ? "No alert is open." : "No alert fits."} />` : null}
    <${More} pages=${pages} /></div>`;
}

export function stateOf(alert) {
  if (alert.resolvedAt) return html`resolved <${Time} at=${alert.resolvedAt} relative />`;
  return alert.acknowledgedAt ? html`looked after by ${alert.acknowledgedBy}` : html`<${Badge} value="open" />`;
}

export function Acknowledge({ alert, again }) {
  const page = usePage();
  const run = async () => {
    await post(`alerts/${segment(alert.id)}/acknowledge`);
    page.say("You look after it: others see that.");
    again();
  };
  return html`<${Act} tone="small" run=${run} label=${`Acknowledge ${alert.title}`}>Acknowledge<//>`;
}
