// Where to look for what an alert is about.

import { html } from "./html.js";
import { short } from "./format.js";
import { link } from "./routing.js";

const PLACES = {
  queue: (name) => [`Jobs of ${name}`, link("jobs", null, { queue: name })],
  "dead-letters": (name, details) => [`Dead letters of ${name}`, link("dead-letters", null, { queue: name, errorClass: details.errorClass })],
  limits: (name) => [`Limits of ${name}`, link("limits", null, { queue: name })],
  schedule: (name) => [`Schedule ${name}`, link("schedules", null, { name })],
  job: (name) => [`Job ${short(name)}`, link("jobs", name)],
  subscriptions: () => ["Subscriptions", link("subscriptions")],
  audit: () => ["Audit", link("audit")],
};

/** Links for the subjects of an alert: {kind, name}; `children` stand beside them. */
export const Subjects = ({ alert, children }) => html`<div class="buttons">${alert.about.filter(({ kind }) => PLACES[kind]).map(({ kind, name }) => {
  const [text, address] = PLACES[kind](name, alert.details);
  return html`<a class="button" href=${address}>${text}</a>`;
})}${children}</div>`;
