// One alert: what it means, what to do now, and where to look.

import { html, useEffect } from "../html.js";
import { get, segment } from "../api.js";
import { alertFacts } from "../alert_facts.js";
import { count } from "../format.js";
import { Badge, Facts, Loaded, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";
import { link } from "../routing.js";
import { Subjects } from "../subjects.js";
import { Acknowledge, stateOf } from "./alerts.js";

export function Alert({ item }) {
  const page = usePage();
  const found = useAnswer((signal) => get(`alerts/${segment(item)}`, {}, signal), [item], 5);
  useEffect(() => page.onRefresh(found.again), []);
  return html`<div><p class="crumbs"><a href=${link("alerts")}>Alerts</a></p>
    <h1 tabindex="-1" class="text">${found.answer?.title ?? "Alert"}</h1>
    <${Loaded} ...${found}>${found.answer ? html`<${Shown} alert=${found.answer} again=${found.again} />` : null}<//></div>`;
}

function Shown({ alert, again }) {
  const tone = alert.resolvedAt ? "" : alert.level === "critical" ? "bad" : "warn";
  return html`<div><section class="now ${tone}" aria-label="What it means and what to do">
      <p class="headline"><${Badge} value=${alert.level} tone=${alert.resolvedAt ? "mute" : null} /> ${stateOf(alert)}</p>
      <p>${alert.meaning}</p>
      ${alert.resolvedAt ? null : html`<p><strong>Now:</strong> <span class="text">${alert.remedy}</span></p>`}
      <${Subjects} alert=${alert}>${alert.resolvedAt || alert.acknowledgedAt ? null : html`<${Acknowledge} alert=${alert} again=${again} />`}<//></section>
    <section><h2>Facts</h2><${Facts} facts=${[
      ["Key", html`<code>${alert.key}</code>`],
      ["Opened", html`<${Time} at=${alert.openedAt} relative />`],
      ["Last seen", html`<${Time} at=${alert.updatedAt} relative />`],
      ["Seen", `${count(alert.occurrences)} times`],
      ["Acknowledged", alert.acknowledgedAt && html`<${Time} at=${alert.acknowledgedAt} relative /> by ${alert.acknowledgedBy}`],
      ["Resolved", alert.resolvedAt && html`<${Time} at=${alert.resolvedAt} relative />`],
      ...alertFacts(alert.details),
    ]} /></section>
    <p class="note">${alert.details.rule ? html`What it is raised at: <a href=${link("thresholds")}>Thresholds</a>` : null}</p></div>`;
}
