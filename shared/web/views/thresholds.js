// What alerts are raised at: what holds, what is built in, and other values.

import { html, useEffect } from "../html.js";
import { ApiError, ask, get } from "../api.js";
import { count, seconds, share } from "../format.js";
import { Act, Loaded, Table, Time, usePage } from "../parts.js";
import { useAnswer } from "../polling.js";

const NEVER = "never";
const WRITE = { seconds, share };

const written = (value, unit) => (value === null ? NEVER : (WRITE[unit] ?? count)(value));

export function Thresholds() {
  const page = usePage();
  const found = useAnswer((signal) => get("thresholds", {}, signal), [], 15);
  useEffect(() => page.onRefresh(found.again), []);
  const columns = [
    { title: "Rule", name: true, cell: (one) => html`<strong>${one.rule}</strong>` },
    { title: "Of", name: true, cell: (one) => one.scope || html`<span class="none">all others</span>` },
    { title: "Warning", number: true, cell: (one) => written(one.warning, one.unit) },
    { title: "Critical", number: true, cell: (one) => written(one.critical, one.unit) },
    { title: "Built in", cell: (one) => html`<span class="by">${written(one.builtInWarning, one.unit)} / ${written(one.builtInCritical, one.unit)}</span>` },
    { title: "Changed", cell: (one) => (one.changedBy ? html`<${Time} at=${one.changedAt} relative /> <span class="by">by ${one.changedBy}</span>` : html`<span class="none">–</span>`) },
    { title: "Do", cell: (one) => html`<${Actions} one=${one} again=${found.again} />` },
  ];
  return html`<div><div class="head"><h1 tabindex="-1">Thresholds</h1>
      ${found.answer ? html`<${Own} rules=${[...new Set(found.answer.items.map((one) => one.rule))]} again=${found.again} />` : null}</div>
    <p class="note">They hold from the next look at the figures on, within a minute.</p>
    <${Loaded} ...${found}>${found.answer ? html`<${Table} caption="Above which value a warning or a critical alert is raised" columns=${columns} rows=${found.answer.items} keyOf=${(one) => `${one.rule} ${one.scope}`} />` : null}<//></div>`;
}

const nameOf = ({ rule, scope }) => (scope ? `${rule} of ${scope}` : rule);

function valueFields(one) {
  const unit = { share: "a share from 0 to 1", seconds: "in seconds" }[one?.unit] ?? one?.unit ?? "in the rule's unit";
  return [
    { name: "warning", label: "Warning above", type: "number", value: one?.warning === null ? "" : String(one?.warning ?? ""), note: `${unit}; empty: never` },
    { name: "critical", label: "Critical above", type: "number", value: one?.critical === null ? "" : String(one?.critical ?? ""), note: `${unit}; empty: never` },
  ];
}

const number = (text) => (text.trim() === "" ? null : Number(text));

/** The API names the fields of the first change of a list. */
async function put(change) {
  try {
    await ask("PUT", "thresholds", { body: { items: [change] } });
  } catch (error) {
    throw new ApiError(error.status, error.message, error.errors?.map((one) => ({ ...one, field: one.field.replace(/^items\.0\./, "") })));
  }
}

function Own({ rules, again }) {
  const page = usePage();
  const run = () => page.confirm({
    title: "Set a threshold of one queue or timer", action: "Set",
    text: "It holds in place of what is set for all.",
    fields: [
      { name: "rule", label: "Rule", type: "choice", value: rules[0], options: rules.map((rule) => [rule, rule]) },
      { name: "scope", label: "Of", hint: "teams-outbound", note: "a queue, or for the rule timer a timer; empty: all" },
      ...valueFields(),
    ],
    run: async ({ rule, scope, warning, critical }) => {
      await put({ rule, scope: scope.trim(), warning: number(warning), critical: number(critical) });
      page.say(`${nameOf({ rule, scope })} is set.`);
      again();
    },
  });
  return html`<${Act} role="Admin" run=${run}>Set for one queue or timer<//>`;
}

function Actions({ one, again }) {
  const page = usePage();
  const change = () => page.confirm({
    title: `Change ${nameOf(one)}?`, action: "Change",
    text: `Now ${written(one.warning, one.unit)} and ${written(one.critical, one.unit)}; built in are ${written(one.builtInWarning, one.unit)} and ${written(one.builtInCritical, one.unit)}.`,
    fields: valueFields(one),
    run: async ({ warning, critical }) => {
      await put({ rule: one.rule, scope: one.scope, warning: number(warning), critical: number(critical) });
      page.say(`${nameOf(one)} is changed.`);
      again();
    },
  });
  const reset = () => page.confirm({
    title: `Reset ${nameOf(one)}?`, action: "Reset",
    text: `Back to ${written(one.builtInWarning, one.unit)} and ${written(one.builtInCritical, one.unit)}, or to what is set for all.`,
    run: async () => {
      await put({ rule: one.rule, scope: one.scope, reset: true });
      page.say(`${nameOf(one)} is reset.`);
      again();
    },
  });
  return html`<div class="buttons"><${Act} role="Admin" tone="small" run=${change} label=${`Change ${nameOf(one)}`}>Change<//>
    ${one.changedBy ? html`<${Act} role="Admin" tone="small" run=${reset} label=${`Reset ${nameOf(one)}`}>Reset<//>` : null}</div>`;
}
