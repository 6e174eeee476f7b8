// The report of a day, drawn from its figures.

import { html, useEffect } from "../html.js";
import { get, segment } from "../api.js";
import { count, seconds, share } from "../format.js";
import { Badge, Facts, JobLink, Loaded, Table, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";
import { link } from "../routing.js";

const NAMES = { enqueued: "enqueued", completed: "completed", failed: "failed attempts", dead: "dead", cancelled: "cancelled" };

export function Report({ item }) {
  const page = usePage();
  const found = useAnswer((signal) => get(`reports/${segment(item)}`, {}, signal), [item]);
  useEffect(() => page.onRefresh(found.again), []);
  return html`<div><p class="crumbs"><a href=${link("reports")}>Reports</a></p>
    <h1 tabindex="-1">Report of ${item} (UTC)</h1>
    <${Loaded} ...${found}>${found.answer ? html`<${Shown} report=${found.answer} />` : null}<//></div>`;
}

/** +50 %, or what stands for it where there was nothing before. */
function change(now, before) {
  if (!before) return now ? "new" : "–";
  const difference = (now - before) / before;
  return `${difference > 0 ? "+" : ""}${share(difference)}`;
}

const queueLink = (name) => html`<a href=${link("jobs", null, { queue: name })}>${name}</a>`;

function Shown({ report }) {
  const { figures } = report;
  return html`<div><p><strong>${report.subject}</strong> <span class="by">made <${Time} at=${report.madeAt} /></span></p>
    <${Trend} title="The day" caption="The day against the same day a week before" now=${figures.total} before=${figures.totalWeekBefore} />
    <${Trend} title="The week" caption="The seven days up to it against the seven before" now=${figures.week} before=${figures.previousWeek} />
    <section><h2>Queues</h2><${Queues} rows=${figures.queues} /></section>
    <section><h2>Failed attempts by class</h2><${Table} caption="Failed attempts, most first" rows=${figures.failures} keyOf=${(one) => `${one.queue} ${one.errorClass}`} empty="None." columns=${[
      { title: "Queue", name: true, cell: (one) => queueLink(one.queue) },
      { title: "Class", cell: (one) => html`<${Badge} value=${one.errorClass} tone="bad" />` },
      { title: "Times", number: true, cell: (one) => count(one.times) },
    ]} /></section>
    <section><h2>Slowest jobs</h2><${Table} caption="Jobs whose last attempt took longest" rows=${figures.slowest} empty="None." columns=${[
      { title: "Queue", name: true, cell: (one) => queueLink(one.queue) },
      { title: "Job", cell: (one) => html`<${JobLink} id=${one.id} />` },
      { title: "Ran for", number: true, cell: (one) => seconds(one.seconds) },
    ]} /></section>
    <section><h2>Dead letters that waited for somebody</h2><${Table} caption="As they were when the report was made" rows=${figures.deadLetters} keyOf=${(one) => `${one.queue} ${one.errorClass}`} empty="None." columns=${[
      { title: "Queue", name: true, cell: (one) => html`<a href=${link("dead-letters", null, { queue: one.queue, errorClass: one.errorClass })}>${one.queue}</a>` },
      { title: "Class", cell: (one) => html`<${Badge} value=${one.errorClass} tone="bad" />` },
      { title: "Number", number: true, cell: (one) => count(one.count) },
      { title: "Newest (UTC)", cell: (one) => one.newest },
    ]} /></section>
    <section><h2>Alerts of the day</h2><${Table} caption="Alerts that opened on the day" rows=${figures.alerts} keyOf=${(one) => `${one.key} ${one.openedAt}`} empty="None." columns=${[
      { title: "Level", cell: (one) => html`<${Badge} value=${one.level} />` },
      { title: "What", wide: true, cell: (one) => html`<span class="text">${one.title}</span>` },
      { title: "Opened (UTC)", cell: (one) => one.openedAt },
      { title: "Resolved (UTC)", cell: (one) => one.resolvedAt ?? "still open" },
    ]} /></section>
    <section><h2>Subscriptions</h2><${Facts} facts=${[
      ["Watched resources", count(figures.subscriptions.watched)],
      ["With a live subscription", count(figures.subscriptions.live)],
      ["With a problem", count(figures.subscriptions.withProblem)],
      ["The next one ends (UTC)", figures.subscriptions.nextExpiry],
    ]} /></section></div>`;
}

function Trend({ title, caption, now, before }) {
  const rows = [
    ...Object.entries(NAMES).map(([name, text]) => ({ text, now: count(now[name]), before: count(before[name]), change: change(now[name], before[name]) })),
    { text: "failure rate", now: share(now.failureRate), before: share(before.failureRate), change: "" },
  ];
  return html`<section><h2>${title}</h2><${Table} caption=${caption} rows=${rows} keyOf=${(one) => one.text} columns=${[
    { title: "What", name: true, cell: (one) => one.text },
    { title: "Number", number: true, cell: (one) => one.now },
    { title: "Before", number: true, cell: (one) => one.before },
    { title: "Change", number: true, cell: (one) => one.change },
  ]} /></section>`;
}

function Queues({ rows }) {
  const columns = [
    { title: "Queue", name: true, cell: (one) => queueLink(one.queue) },
    { title: "Enqueued", number: true, cell: (one) => count(one.enqueued) },
    { title: "Completed", number: true, cell: (one) => count(one.completed) },
    { title: "Change", number: true, cell: (one) => change(one.completed, one.completedWeekBefore) },
    { title: "Failed", number: true, cell: (one) => count(one.failed) },
    { title: "Dead", number: true, cell: (one) => count(one.dead) },
    { title: "Mean run", number: true, cell: (one) => seconds(one.meanSeconds) },
    { title: "p50", number: true, cell: (one) => seconds(one.p50) },
    { title: "p95", number: true, cell: (one) => seconds(one.p95) },
    { title: "p99", number: true, cell: (one) => seconds(one.p99) },
    { title: "p95 before", number: true, cell: (one) => seconds(one.p95WeekBefore) },
  ];
  return html`<${Table} caption="Queues that had something to do; percentiles are from due to ended" columns=${columns} rows=${rows} keyOf=${(one) => one.queue} empty="No queue had anything to do." />`;
}
