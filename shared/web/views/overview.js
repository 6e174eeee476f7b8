// Every queue as it is now, and how it went.

import { html, useEffect, useMemo, useState } from "../html.js";
import { get, post, segment } from "../api.js";
import { Chart } from "../charts.js";
import { count, seconds, share } from "../format.js";
import { Act, Badge, Choice, Loaded, Table, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";
import { go, link } from "../routing.js";

const NOW_SECONDS = 1;
const METRICS_SECONDS = 30;
const RANGES = [["1h", "1 hour"], ["6h", "6 hours"], ["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"]];

export function Overview({ place }) {
  const stats = useAnswer((signal) => get("stats", {}, signal), [], NOW_SECONDS);
  const page = usePage();
  useEffect(() => page.onRefresh(stats.again), []);
  return html`<div><h1 tabindex="-1">Overview</h1>
    <${Loaded} ...${stats}>${stats.answer === null ? null : html`<div>
      <${State} stats=${stats.answer} />
      <${Queues} queues=${stats.answer.queues} again=${stats.again} /></div>`}<//>
    <${History} query=${place.query} queues=${stats.answer?.queues ?? []} /></div>`;
}

function State({ stats }) {
  const { critical, warning } = stats.openAlerts;
  const dead = stats.queues.reduce((sum, queue) => sum + queue.deadLetters, 0);
  const paused = stats.queues.filter((queue) => queue.paused).map((queue) => queue.queue);
  const calm = critical + warning + dead + paused.length === 0;
  const toResume = () => document.querySelector(`main button[aria-label="Resume ${paused[0]}"]`)?.focus();
  return html`<p class="state ${critical ? "bad" : calm ? "good" : "warn"}">
    ${calm ? html`<span>Nothing needs you.</span>` : null}
    ${critical + warning ? html`<a href=${link("alerts", null, { status: "open" })}>${critical ? `${critical} critical` : ""}${critical && warning ? ", " : ""}${warning ? `${warning} warning` : ""} ${critical + warning === 1 ? "alert" : "alerts"}</a>` : null}
    ${dead ? html`<a href=${link("dead-letters")}>${count(dead)} dead ${dead === 1 ? "letter" : "letters"}</a>` : null}
    ${paused.length ? html`<button type="button" class="link" onClick=${toResume}>${paused.length} ${paused.length === 1 ? "queue is" : "queues are"} paused: ${paused.join(", ")}</button>` : null}
    <span class="at">as of <${Time} at=${stats.at} /></span></p>`;
}

const NARROW = matchMedia("(max-width: 47rem)");

/** Whether the window is as narrow as a phone's. */
function useNarrow() {
  const [narrow, setNarrow] = useState(NARROW.matches);
  useEffect(() => {
    const changed = () => setNarrow(NARROW.matches);
    NARROW.addEventListener("change", changed);
    return () => NARROW.removeEventListener("change", changed);
  }, []);
  return narrow;
}

const isQuiet = (one) => !one.paused && one.ready + one.active + one.scheduled + one.waiting + one.deadLetters === 0
  && !one.recent?.enqueuedPerMinute && !one.recent?.endedPerMinute;

function Queues({ queues, again }) {
  const narrow = useNarrow();
  const quiet = narrow ? queues.filter(isQuiet) : [];
  const jobs = (queue, status, number) => (number ? html`<a href=${link("jobs", null, { queue, status })}>${count(number)}</a>` : html`<span class="none">0</span>`);
  const columns = [
    { title: "Queue", name: true, cell: (one) => html`<a href=${link("jobs", null, { queue: one.queue })}>${one.queue}</a>
      ${one.paused ? html` <${Badge} value="paused" />` : null}${one.closed ? html` <span title=${one.closed}><${Badge} value="closed" /></span>` : null}` },
    { title: "Ready", number: true, cell: (one) => jobs(one.queue, "ready", one.ready) },
    { title: "Active", number: true, cell: (one) => jobs(one.queue, "active", one.active) },
    { title: "Scheduled", number: true, cell: (one) => jobs(one.queue, "scheduled", one.scheduled) },
    { title: "Waiting", number: true, cell: (one) => jobs(one.queue, "waiting", one.waiting) },
    { title: "Dead", number: true, cell: (one) => (one.deadLetters ? html`<a class="alarm" href=${link("dead-letters", null, { queue: one.queue })}>${count(one.deadLetters)}</a>` : html`<span class="none">0</span>`) },
    { title: "In / min", number: true, cell: (one) => count(one.recent?.enqueuedPerMinute) },
    { title: "Out / min", number: true, cell: (one) => count(one.recent?.endedPerMinute) },
    { title: "Failing", number: true, cell: (one) => html`<span class=${one.recent?.failureRate > 0.1 ? "alarm" : ""}>${share(one.recent?.failureRate)}</span>` },
    { title: "Oldest ready", number: true, cell: (one) => seconds(one.oldestReadySeconds) },
    { title: "p95", number: true, cell: (one) => seconds(one.recent?.p95Seconds) },
    { title: "Control", cell: (one) => html`<${Pause} queue=${one} again=${again} />` },
  ];
  const shown = (caption, rows) => html`<${Table} caption=${caption} columns=${columns} rows=${rows} keyOf=${(one) => one.queue} isMarked=${(one) => one.paused} empty="No queue has anything to do." />`;
  return html`<div>${shown("Queues now. Rates and failures are of the last five minutes; p95: so long took 95 of 100 jobs at most, from due to ended.", queues.filter((one) => !quiet.includes(one)))}
    ${quiet.length ? html`<details class="quiet"><summary>${quiet.length} quiet ${quiet.length === 1 ? "queue" : "queues"}</summary>${shown("Queues without jobs now", quiet)}</details>` : null}</div>`;
}

function Pause({ queue, again }) {
  const page = usePage();
  const change = async () => {
    const verb = queue.paused ? "resume" : "pause";
    const asked = { title: `Pause ${queue.queue}?`, text: "Running jobs end; no other starts until it is resumed. Jobs are still taken.", action: "Pause", tone: "danger" };
    if (!queue.paused && (await page.confirm(asked)) === null) return;
    await post(`${segment(queue.queue)}/${verb}`);
    page.say(`${queue.queue} is ${queue.paused ? "resumed" : "paused"}.`);
    again();
  };
  return html`<${Act} tone="small" run=${change} label=${`${queue.paused ? "Resume" : "Pause"} ${queue.queue}`}>${queue.paused ? "Resume" : "Pause"}<//>`;
}

function History({ query, queues }) {
  const range = RANGES.some(([name]) => name === query.range) ? query.range : "1h";
  const queue = query.queue ?? "";
  const metrics = useAnswer((signal) => get("metrics", { timeRange: range, queue }, signal), [range, queue], METRICS_SECONDS);
  const change = (more) => go("overview", null, { range, queue, ...more });
  const names = queues.map((one) => [one.queue, one.queue]);
  return html`<section aria-labelledby="history"><h2 id="history">How it went</h2>
    <div class="filters"><${Choice} label="Time" value=${range} options=${RANGES} onChange=${(value) => change({ range: value })} />
      <${Choice} label="Queue" value=${queue} options=${[["", "all"], ...(names.length ? names : queue ? [[queue, queue]] : [])]} onChange=${(value) => change({ queue: value })} /></div>
    <${Loaded} ...${metrics}>${metrics.answer ? html`<${Charts} metrics=${metrics.answer} all=${queue === ""} />` : null}<//></section>`;
}

function Charts({ metrics, all }) {
  const figures = useMemo(() => figuresOf(metrics), [metrics]);
  if (figures.times.length === 0) return html`<p class="empty">Nothing is measured yet: statistics are kept every five minutes.</p>`;
  const slowest = all ? " of the slowest queue" : "";
  return html`<div class="charts">
    <${Chart} title="Jobs a minute" times=${figures.times} series=${figures.throughput} write=${count} />
    <${Chart} title=${`From due to ended${slowest}`} times=${figures.times} series=${figures.latency} write=${seconds} />
    <${Chart} title="Backlog" times=${figures.times} series=${figures.backlog} write=${count} /></div>`;
}

/** Series over the steps that are known; queues are added up, but of percentiles the highest counts. */
function figuresOf({ buckets, stepSeconds }) {
  const steps = new Map();
  for (const bucket of buckets) {
    const at = Date.parse(bucket.at) / 1000;
    steps.set(at, [...(steps.get(at) ?? []), bucket]);
  }
  const times = [...steps.keys()].sort((a, b) => a - b);
  const of = (name, merge) => times.map((at) => merge(steps.get(at).map((bucket) => bucket[name]).filter((value) => value !== null)));
  const sum = (values) => (values.length ? values.reduce((a, b) => a + b, 0) : null);
  const rate = (values) => (values.length ? (sum(values) * 60) / stepSeconds : null);
  const most = (values) => (values.length ? Math.max(...values) : null);
  return {
    times,
    throughput: [
      { title: "enqueued", colour: "--chart-1", values: of("enqueued", rate) },
      { title: "completed", colour: "--chart-2", values: of("completed", rate) },
      { title: "failed attempts", colour: "--chart-3", values: of("failed", rate) },
    ],
    latency: [
      { title: "p50", colour: "--chart-1", values: of("p50Seconds", most) },
      { title: "p95", colour: "--chart-2", values: of("p95Seconds", most) },
      { title: "p99", colour: "--chart-3", values: of("p99Seconds", most) },
    ],
    backlog: [
      { title: "ready", colour: "--chart-1", values: of("ready", sum) },
      { title: "scheduled", colour: "--chart-2", values: of("scheduled", sum) },
      { title: "dead letters", colour: "--chart-3", values: of("deadLetters", sum) },
    ],
  };
}
