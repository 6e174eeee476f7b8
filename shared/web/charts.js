// Figures over time: drawn by uPlot, told in a sentence, and as a table for whoever wants the numbers.

import { html, useEffect, useRef } from "./html.js";
import { moment } from "./format.js";
import { usePage } from "./parts.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** `series`: {title, colour (a custom property's name), values}; `times`: instants in seconds; `write` makes text of a value. */
export function Chart({ title, times, series, write }) {
  const { utc } = usePage();
  const place = useRef(null);
  useEffect(() => {
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    let plot = null;
    const draw = () => {
      plot?.destroy();
      plot = makePlot(place.current, times, series, write, utc);
    };
    const fit = new ResizeObserver(() => plot?.setSize({ width: place.current.clientWidth, height: 170 }));
    draw();
    fit.observe(place.current);
    scheme.addEventListener("change", draw);
    return () => { scheme.removeEventListener("change", draw); fit.disconnect(); plot.destroy(); };
  }, [times, series, utc]);
  const told = series.map((one) => `${one.title}: ${summary(one.values, write)}`).join("; ");
  return html`<figure class="chart"><figcaption>${title}</figcaption>
    <ul class="legend">${series.map((one, index) => html`<li class="mark-${index + 1}">${one.title}</li>`)}</ul>
    <div ref=${place} role="img" aria-label=${`${title}. ${told}`}></div>
    <details><summary>Numbers</summary><div class="scroll short" tabindex="0" role="region" aria-label=${`${title}, numbers`}><table>
      <caption>${title}</caption><thead><tr><th scope="col">From</th>${series.map((one) => html`<th scope="col" class="number">${one.title}</th>`)}</tr></thead>
      <tbody>${times.map((at, row) => html`<tr><td>${moment(at * 1000, utc)}</td>${series.map((one) => html`<td class="number">${write(one.values[row])}</td>`)}</tr>`).reverse()}</tbody>
    </table></div></details></figure>`;
}

function summary(values, write) {
  const known = values.filter((value) => value !== null);
  return known.length ? `now ${write(known.at(-1))}, at most ${write(Math.max(...known))}` : "nothing measured";
}

function makePlot(element, times, series, write, utc) {
  const line = colour("--line");
  const text = colour("--text-soft");
  const days = times.length > 1 && times.at(-1) - times[0] > 2 * 86400;
  const label = (at) => (days ? moment(at * 1000, utc).slice(5, 10) : moment(at * 1000, utc).slice(11, 16));
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 }, font: "11px system-ui" };
  return new globalThis.uPlot({
    width: element.clientWidth || 300,
    height: 170,
    legend: { show: false },
    cursor: { drag: { x: false, y: false } },
    scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [{ ...axis, values: (_plot, ticks) => ticks.map(label) }, { ...axis, size: 58, values: (_plot, ticks) => ticks.map((tick) => write(tick)) }],
    series: [{}, ...series.map((one) => ({ label: one.title, stroke: colour(one.colour), width: 1.75, points: { size: 4 } }))],
  }, [times, ...series.map((one) => one.values)], element);
}
