// Recurring schedules.

import { html, useEffect } from "../html.js";
import { ask, get, post, segment } from "../api.js";
import { Act, Badge, JobLink, Loaded, Table, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";
import { link } from "../routing.js";

export function Schedules() {
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
  return html`<div><h1 tabindex="-1">Schedules</h1>
    <${Loaded} ...${found}>${found.answer ? html`<${Table} caption="Recurring schedules, by name" columns=${columns} rows=${found.answer.items} keyOf=${(one) => one.name} isMarked=${(one) => one.paused} empty="There is no schedule." />` : null}<//></div>`;
}

function Actions({ one, again }) {
  const page = usePage();
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
  return html`<div><div class="buttons">
    <${Act} tone="small" run=${run} label=${`Run ${one.name} now`}>Run now<//>
    <${Act} tone="small" run=${pause} label=${`${one.paused ? "Resume" : "Pause"} ${one.name}`}>${one.paused ? "Resume" : "Pause"}<//>
    <${Act} tone="small danger" run=${remove} label=${`Delete ${one.name}`}>Delete<//></div></div>`;
}
