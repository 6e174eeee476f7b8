// Dead letters as a table, of which some can be chosen and ordered together.

import { html, useState } from "../html.js";
import { discardMany, redriveMany, reviewMany } from "../bulk.js";
import { count } from "../format.js";
import { Act, Badge, JobLink, Table, Time, usePage } from "../parts.js";
import { link } from "../routing.js";

const MOST_CHOSEN = 500;
const idsOf = (letters) => letters.map((one) => one.id);

export function LetterList({ items, again }) {
  const page = usePage();
  const [marked, setMarked] = useState(new Set());
  const open = items.filter((one) => one.state === "open");
  const chosen = open.filter((one) => marked.has(one.id));
  const jobs = chosen.filter((one) => one.jobId);
  const helps = chosen.some((one) => one.redriveHelps);
  const choose = (id) => setMarked((before) => {
    const after = new Set(before);
    if (!after.delete(id)) after.add(id);
    return after;
  });
  const order = (many, letters) => async () => {
    if (!(await many(page, letters.length, "The chosen dead letters", { ids: idsOf(letters) }))) return;
    setMarked(new Set());
    again();
  };
  const columns = [
    { title: "Choose", cell: (one) => html`<input type="checkbox" aria-label=${`Choose the dead letter of job ${one.jobId ?? one.id}`} disabled=${one.state !== "open"} checked=${marked.has(one.id)} onChange=${() => choose(one.id)} />` },
    { title: "Died", cell: (one) => html`<a href=${link("dead-letters", one.id)}><${Time} at=${one.diedAt} relative /></a>` },
    { title: "Queue", name: true, cell: (one) => one.queue },
    { title: "State", cell: (one) => html`<${Badge} value=${one.state} />` },
    { title: "Error", wide: true, cell: (one) => html`<strong>${one.errorClass}</strong> ${one.errorMessage}` },
    { title: "Job", cell: (one) => (one.jobId ? html`<${JobLink} id=${one.jobId} />` : "a message, not ours") },
    { title: "Review", wide: true, cell: (one) => (one.reviewNote ? html`<span class="text">${one.reviewNote}</span> <span class="by">by ${one.reviewedBy}</span>` : html`<span class="none">–</span>`) },
  ];
  return html`<div><div class="buttons">
      <button type="button" disabled=${open.length === 0} onClick=${() => setMarked(new Set(chosen.length === open.length ? [] : idsOf(open.slice(0, MOST_CHOSEN))))}>${chosen.length && chosen.length === open.length ? "Choose none" : "Choose all shown"}</button>
      ${jobs.length ? html`<${Act} tone=${helps ? "primary" : ""} run=${order(redriveMany, jobs)}>Redrive ${count(jobs.length)} chosen<//>` : null}
      ${chosen.length ? html`<${Act} tone=${helps ? "danger" : "primary"} run=${order(discardMany, chosen)}>Discard ${count(chosen.length)} chosen<//>
        <${Act} run=${order(reviewMany, chosen)}>Review ${count(chosen.length)} chosen<//>` : null}</div>
    <${Table} caption="Dead letters, newest first" columns=${columns} rows=${items} empty="No dead letter fits." /></div>`;
}
