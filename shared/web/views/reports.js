// Daily reports, newest first.

import { html, useEffect } from "../html.js";
import { get } from "../api.js";
import { Failure, More, Table, Time, usePage } from "../parts.js";
import { usePages } from "../polling.js";
import { link } from "../routing.js";

export function Reports() {
  const page = usePage();
  const pages = usePages(async (cursor, signal) => {
    const found = await get("reports", { cursor }, signal);
    return { ...found, items: found.items.map((one) => ({ ...one, id: one.day })) };
  }, [], 60);
  useEffect(() => page.onRefresh(pages.again));
  const columns = [
    { title: "Day (UTC)", name: true, cell: (one) => html`<a href=${link("reports", one.day)}>${one.day}</a>` },
    { title: "In short", wide: true, cell: (one) => one.subject },
    { title: "Made", cell: (one) => html`<${Time} at=${one.madeAt} relative />` },
  ];
  return html`<div><h1 tabindex="-1">Reports</h1>
    <${Failure} error=${pages.error} again=${pages.again} />
    ${pages.items ? html`<${Table} caption="Daily reports, newest first" columns=${columns} rows=${pages.items} empty="There is no report yet: the first is made after the first midnight (UTC)." />` : null}
    <${More} pages=${pages} /></div>`;
}
