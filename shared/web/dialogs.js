// Questions before something happens, and the list of keys. `dialog` keeps the focus inside and gives it back.

import { html, useEffect, useRef, useState } from "./html.js";

function useModal(onCancel) {
  const element = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    const dialog = element.current;
    dialog.showModal();
    return () => {
      dialog.close(); // while it is open, nothing outside takes the focus
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return { ref: element, onCancel: (event) => { event.preventDefault(); onCancel(); } };
}

/**
 * `question`: {title, text, action, typed, fields: [{name, label, type, required, value, hint}]}. With `typed` that
 * text must be typed first. `answer` gets the fields' values, or null.
 */
export function Question({ question, answer }) {
  const modal = useModal(() => answer(null));
  const [values, setValues] = useState(() => Object.fromEntries((question.fields ?? []).map((field) => [field.name, field.value ?? ""])));
  const [typed, setTyped] = useState("");
  const ready = (!question.typed || typed.trim() === question.typed)
    && (question.fields ?? []).every((field) => !field.required || values[field.name].trim());
  const submit = (event) => {
    event.preventDefault();
    if (ready) answer(values);
  };
  return html`<dialog ...${modal} aria-labelledby="question-title"><form onSubmit=${submit}>
    <h2 id="question-title">${question.title}</h2>
    ${question.text ? html`<p>${question.text}</p>` : null}
    ${(question.fields ?? []).map((field) => html`<label class="field"><span>${field.label}</span>
      ${field.type === "note"
        ? html`<textarea rows="4" maxlength="4000" value=${values[field.name]} onInput=${(event) => setValues({ ...values, [field.name]: event.target.value })}></textarea>`
        : html`<input type=${field.type ?? "text"} value=${values[field.name]} placeholder=${field.hint} min=${field.min} step="any" autocomplete="off"
            onInput=${(event) => setValues({ ...values, [field.name]: event.target.value })} />`}</label>`)}
    ${question.typed ? html`<label class="field"><span>Type <strong>${question.typed}</strong> to confirm</span>
      <input type="text" autocomplete="off" spellcheck="false" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label>` : null}
    <div class="buttons"><button type="button" onClick=${() => answer(null)}>Cancel</button>
      <button type="submit" class=${question.tone ?? "primary"} disabled=${!ready}>${question.action}</button></div>
  </form></dialog>`;
}

export const KEYS = [
  ["/", "search for a job"],
  ["g then o", "overview"], ["g then j", "jobs"], ["g then d", "dead letters"], ["g then s", "schedules"],
  ["g then l", "limits"], ["g then u", "subscriptions"], ["g then y", "syncs"], ["g then a", "alerts"], ["g then t", "audit"],
  ["r", "ask for the view's figures again"], ["?", "this list"], ["Esc", "close a question"],
];

export function Keys({ on, setOn, close }) {
  const modal = useModal(close);
  return html`<dialog ...${modal} aria-labelledby="keys-title">
    <h2 id="keys-title">Keys</h2>
    <dl class="keys">${KEYS.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
    <label class="check"><input type="checkbox" checked=${on} onChange=${(event) => setOn(event.target.checked)} /> These keys work</label>
    <div class="buttons"><button type="button" class="primary" onClick=${close}>Close</button></div>
  </dialog>`;
}
