// Recurring schedules.

import { html, useEffect } from "../html.js";
import { ask, get, post, segment } from "../api.js";
import { Act, Badge, JobLink, Loaded, Table, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";
import { link } from "../routing.js";
import { askSchedule } from "../schedule_form.js";

export function Schedules({ place }) {
  const { name = "" } = place.query;
  const page = usePage();
  const found = useAnswer((signal) => get("schedules", {}, signal), [], 5);
  useEffect(() => page.onRefresh(found.again), []);
  const columns = [
    { title: "Schedule", cell: (one) => html`<strong>${one.name}</strong>${one.paused ? html` <${Badge} value="paused" />` : null}` },
    { title: "Queue", name: true, cell: (one) => html`<a href=${link("jobs", null, { queue: one.queue })}>${one.queue}</a>` },
    { title: "When", cell: (one) => html`<code>${one.cron}</code> <span class="by">${one.timeZone}</span>` },
    { title: "Next", cell: (one) => html`<${Time} at=${one.paused ? null : one.nextRunAt} relative />` },
    { title: "Last", cell: (one) => html`<${Time} at=${one.lastRunAt} relative />` },
    { title: "Last job", cell: (one) => (one.lastJobId ? html`<${JobLink} id=${one.lastJobId} />` : html`<span class="none">–</span>`) },
    { title: "Problem", wide: true, cell: (one) => (one.problem ? html`<span class="alarm">${one.problem}</span>` : html`<span class="none">–</span>`) },
    { title: "Do", cell: (one) => html`<${Actions} one=${one} again=${found.again} />` },
  ];
  const rows = found.answer?.items.filter((one) => !name || one.name === name);
  return html`<div><div class="head"><h1 tabindex="-1">Schedules</h1><${Create} again=${found.again} /></div>
    ${name ? html`<p><a href=${link("schedules")}>All schedules</a></p>` : null}
    <${Loaded} ...${found}>${rows ? html`<${Table} caption="Recurring schedules, by name" columns=${columns} rows=${rows} keyOf=${(one) => one.name} isMarked=${(one) => one.paused} empty="There is no schedule." />` : null}<//></div>`;
}

const queueNames = async () => (await get("stats")).queues.filter((one) => !one.closed).map((one) => one.queue);

function Create({ again }) {
  const page = usePage();
  return html`<${Act} tone="primary" run=${async () => askSchedule(page, await queueNames(), null, again)}>New schedule<//>`;
}

function Actions({ one, again }) {
  const page = usePage();
  const change = async () => askSchedule(page, await queueNames(), one, again);
  const path = `schedules/${segment(one.name)}`;
  const pause = async () => {
    await ask("PATCH", path, { body: { paused: !one.paused } });
    page.say(`${one.name} ${one.paused ? "goes on" : "is paused"}.`);
    again();
  };
  const run = async () => {
    if ((await page.confirm({ title: `Run ${one.name} now?`, text: "It makes a job now, besides its slots.", action: "Run now" })) === null) return;
    await post(`${path}/run`);
    page.say(`${one.name} has made a job.`);
    again();
  };
  const remove = async () => {
    if ((await page.confirm({ title: `Delete ${one.name}?`, text: "It makes no more jobs. Those that it made stay.", action: "Delete", tone: "danger", typed: one.name })) === null) return;
    await ask("DELETE", path);
    page.say(`${one.name} is deleted.`);
    again();
  };
  return html`<div><div class="buttons wrap">
    <${Act} tone="small" run=${run} label=${`Run ${one.name} now`}>Run now<//>
    <${Act} tone="small" run=${change} label=${`Change ${one.name}`}>Change<//>
    <${Act} tone="small" run=${pause} label=${`${one.paused ? "Resume" : "Pause"} ${one.name}`}>${one.paused ? "Resume" : "Pause"}<//>
    <${Act} tone="small danger" run=${remove} label=${`Delete ${one.name}`}>Delete<//></div></div>`;
}
