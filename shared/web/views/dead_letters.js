// Dead letters: by their error, and one by one.

import { html, useEffect } from "../html.js";
import { get } from "../api.js";
import { Choice, Failure, Loaded, More, usePage } from "../parts.js";
import { useAnswer, usePages } from "../polling.js";
import { go } from "../routing.js";
import { LetterGroups } from "./letter_groups.js";
import { LetterList } from "./letter_list.js";

const LIST_SECONDS = 5;
const STATES = [["open", "open"], ["redriven", "redriven"], ["discarded", "discarded"], ["all", "all"]];
const REVIEWED = [["", "all"], ["false", "not reviewed"], ["true", "reviewed"]];

/** In the address: the filters, and (`in`, `class`, `pattern`, `foreign`) the group whose letters are shown in place. */
export function DeadLetters({ place }) {
  const { queue = "", status = "open", reviewed = "", errorClass = "" } = place.query;
  const opened = place.query.in ? { in: place.query.in, class: place.query.class, pattern: place.query.pattern, foreign: place.query.foreign } : {};
  const change = (more) => go("dead-letters", null, { queue, status: status === "open" ? "" : status, reviewed, errorClass, ...opened, ...more });
  const groups = useAnswer((signal) => get("dead-letter/groups", { queue, reviewed }, signal), [queue, reviewed], LIST_SECONDS);
  const queues = useAnswer((signal) => get("stats", {}, signal), ["names"]);
  const names = queues.answer?.queues.map((one) => one.queue) ?? (queue ? [queue] : []);
  const filters = { queue, status: status === "all" ? "" : status, reviewed, errorClass };
  const pages = usePages((cursor, signal) => get("dead-letter", { ...filters, cursor }, signal), [filters], LIST_SECONDS);
  const again = () => { groups.again(); pages.again(); };
  const page = usePage();
  useEffect(() => page.onRefresh(again));
  return html`<div><h1 tabindex="-1">Dead letters</h1>
    <div class="filters">
      <${Choice} label="Queue" value=${queue} options=${[["", "all"], ...names.map((name) => [name, name])]} onChange=${(value) => change({ queue: value })} />
      <${Choice} label="State" value=${status} options=${STATES} onChange=${(value) => change({ status: value === "open" ? "" : value })} />
      <${Choice} label="Review" value=${reviewed} options=${REVIEWED} onChange=${(value) => change({ reviewed: value })} />
      ${errorClass ? html`<button type="button" onClick=${() => change({ errorClass: "" })}>Not only ${errorClass}</button>` : null}
    </div>
    <section aria-labelledby="groups"><h2 id="groups" tabindex="-1">By error</h2>
      <${Loaded} ...${groups}>${groups.answer ? html`<${LetterGroups} answer=${groups.answer} errorClass=${errorClass} reviewed=${reviewed} opened=${opened} change=${change} again=${again} />` : null}<//></section>
    <section aria-labelledby="letters"><h2 id="letters">One by one</h2>
      <${Failure} error=${pages.error} again=${pages.again} />
      ${pages.items ? html`<${LetterList} items=${pages.items} again=${again} />` : html`<p class="loading" role="status">Loading …</p>`}
      <${More} pages=${pages} /></section></div>`;
}
