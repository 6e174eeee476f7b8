// One dead letter: its error, a note of what was found out, and its end.

import { html, useEffect } from "../html.js";
import { get, post, segment } from "../api.js";
import { Act, Badge, Facts, JobLink, Loaded, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";
import { link } from "../routing.js";

export function Letter({ item }) {
  const page = usePage();
  const found = useAnswer((signal) => get(`dead-letter/${segment(item)}`, {}, signal), [item], 5);
  useEffect(() => page.onRefresh(found.again), []);
  return html`<div><p class="crumbs"><a href=${link("dead-letters")}>Dead letters</a></p>
    <h1 tabindex="-1">Dead letter <code class="whole">${item}</code></h1>
    <${Loaded} ...${found}>${found.answer ? html`<${Shown} letter=${found.answer} again=${found.again} />` : null}<//></div>`;
}

function Shown({ letter, again }) {
  const page = usePage();
  const order = async (asked, path, body, said) => {
    const values = await page.confirm(asked);
    if (values === null) return;
    const answer = await post(path, body(values));
    const refused = answer.skipped?.[0];
    page.say(refused ? `It is left as it is: ${refused.reason}.` : said, Boolean(refused));
    again();
  };
  const review = () => order(
    { title: "What was found out?", action: "Save the note", fields: [{ name: "note", label: "Note", type: "note", required: true, value: letter.reviewNote ?? "" }] },
    `dead-letter/${segment(letter.id)}/review`, (values) => ({ note: values.note.trim() }), "The note is saved.",
  );
  const discard = () => order(
    { title: "Discard this dead letter?", text: letter.jobId ? "It cannot be redriven any more. Its job stays in the history." : "The message stays here to be read, and counts no more.", action: "Discard", tone: "danger", typed: "discard" },
    `dead-letter/${segment(letter.id)}/discard`, () => undefined, "The dead letter is discarded.",
  );
  const redrive = () => order(
    { title: "Redrive this dead letter?", text: "It runs again as a new job with the same payload.", action: "Redrive" },
    "dead-letter/redrive", () => ({ ids: [letter.id] }), "It is redriven.",
  );
  const open = letter.state === "open";
  const foreign = letter.jobId === null;
  const helps = letter.redriveHelps;
  return html`<div><section class="now ${open ? "bad" : ""}" aria-label="State and what to do">
      <p class="headline"><${Badge} value=${letter.state} /> ${foreign ? html`<strong>A message that is not ours</strong>` : html`<strong>${letter.errorClass}</strong> <span class="text">${letter.errorMessage}</span>`}</p>
      ${foreign ? html`<p>It came at <${Time} at=${letter.diedAt} /> into storage queue <strong>${letter.queue}</strong>, and cannot be a job: <span class="text">${letter.errorMessage}</span></p>` : null}
      ${foreign && open ? html`<p><strong>Now:</strong> Find its sender, and have it send to the right place. There is nothing to redrive.</p>` : null}
      ${open && !foreign ? html`<p>${letter.meaning}</p><p><strong>Now:</strong> ${letter.remedy}</p>` : null}
      <div class="buttons">
        ${open && !helps ? html`<${Act} tone="primary" run=${discard}>Discard<//>` : null}
        ${open && letter.jobId ? html`<${Act} tone=${helps ? "primary" : ""} run=${redrive}>Redrive<//>` : null}
        <${Act} run=${review}>${letter.reviewNote ? "Change the note" : "Write a review note"}<//>
        ${open && helps ? html`<${Act} tone="danger" run=${discard}>Discard<//>` : null}</div></section>
    <section><h2>Facts</h2><${Facts} facts=${[
      ["Job", letter.jobId && html`<${JobLink} id=${letter.jobId} />`],
      ["Queue", html`<a href=${link("dead-letters", null, { queue: letter.queue })}>${letter.queue}</a>`],
      ["Died", html`<${Time} at=${letter.diedAt} relative />`],
      ["Reviewed", letter.reviewedAt && html`<${Time} at=${letter.reviewedAt} relative /> by ${letter.reviewedBy}`],
      ["Note", letter.reviewNote && html`<span class="text">${letter.reviewNote}</span>`],
      ["Redriven", letter.redrivenAt && html`<${Time} at=${letter.redrivenAt} relative /> by ${letter.redrivenBy}`],
      ["Redriven as", letter.redrivenJobId && html`<${JobLink} id=${letter.redrivenJobId} />`],
      ["Discarded", letter.discardedAt && html`<${Time} at=${letter.discardedAt} relative /> by ${letter.discardedBy}`],
    ]} /></section>
    ${letter.text !== null ? html`<section><h2>The message</h2><pre class="json" tabindex="0" role="region" aria-label="The message">${letter.text}</pre></section>` : null}</div>`;
}
