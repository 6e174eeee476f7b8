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
 * `question`: {title, text, action, tone, typed, fields, shows, run}. With `typed` that text must be typed first.
 * `fields`: {name, label, type (text, number, note, choice, check), value, required, hint, note, options}; a wrong one
 * that the API names as `name` or `name.…` has its message beside it. `shows` is a component that gets the values.
 * `run(values)` does what is asked while the question stays; it closes when that has been done. `answer` gets the
 * fields' values, or null.
 */
export function Question({ question, answer }) {
  const fields = question.fields ?? [];
  const modal = useModal(() => answer(null));
  const [values, setValues] = useState(() => Object.fromEntries(fields.map((field) => [field.name, field.value ?? ""])));
  const [typed, setTyped] = useState("");
  const [failure, setFailure] = useState(null);
  const [corrected, setCorrected] = useState([]);
  const [busy, setBusy] = useState(false);
  const change = (name, value) => {
    setValues((before) => ({ ...before, [name]: value }));
    setCorrected((before) => [...before, name]);
  };
  const wrong = problemsOf(failure, fields);
  useEffect(() => { if (failure) modal.ref.current.querySelector("[aria-invalid=true]")?.focus(); }, [failure]);
  const ready = !busy && (!question.typed || typed.trim() === question.typed)
    && fields.every((field) => !field.required || values[field.name].trim());
  const submit = async (event) => {
    event.preventDefault();
    if (!ready) return;
    setBusy(true);
    try {
      await question.run?.(values);
      answer(values);
    } catch (error) {
      setFailure(error);
      setCorrected([]);
      setBusy(false);
    }
  };
  return html`<dialog ...${modal} class=${fields.length > 3 ? "large" : ""} aria-labelledby="question-title"><form onSubmit=${submit}>
    <h2 id="question-title">${question.title}</h2>
    ${question.text ? html`<p>${question.text}</p>` : null}
    ${wrong.others.length ? html`<div class="failure" role="alert">${wrong.others.map((one) => html`<p>${one}</p>`)}</div>` : null}
    <div class="fields">${fields.map((field, index) => html`<${Input} key=${field.name} id=${`question-${index}`} field=${field} value=${values[field.name]}
      problem=${corrected.includes(field.name) ? null : wrong.of[field.name]} onChange=${(value) => change(field.name, value)} />`)}</div>
    ${question.shows ? html`<${question.shows} values=${values} />` : null}
    ${question.typed ? html`<label class="field"><span>Type <strong>${question.typed}</strong> to confirm</span>
      <input type="text" autocomplete="off" spellcheck="false" value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label>` : null}
    <div class="buttons"><button type="button" onClick=${() => answer(null)}>Go back</button>
      <button type="submit" class=${question.tone ?? "primary"} disabled=${!ready}>${question.action}</button></div>
  </form></dialog>`;
}

function Input({ id, field, value, problem, onChange }) {
  const told = [field.note && `${id}-note`, problem && `${id}-problem`].filter(Boolean).join(" ") || null;
  const common = { id, "aria-invalid": problem ? "true" : null, "aria-describedby": told, onInput: (event) => onChange(event.target.value) };
  const control = {
    note: () => html`<textarea ...${common} rows=${field.rows ?? 4} maxlength=${field.most ?? 4000} spellcheck=${field.rows ? "false" : null} value=${value}></textarea>`,
    choice: () => html`<select ...${common} value=${value}>${field.options.map(([option, text]) => html`<option value=${option} selected=${option === value}>${text}</option>`)}</select>`,
    check: () => html`<input ...${common} type="checkbox" checked=${value} onInput=${(event) => onChange(event.target.checked)} />`,
  }[field.type] ?? (() => html`<input ...${common} type=${field.type ?? "text"} value=${value} placeholder=${field.hint} min=${field.min} step="any" autocomplete="off" spellcheck="false" />`);
  return html`<div class="field ${field.wide || field.type === "note" ? "wide" : ""} ${field.type === "check" ? "check" : ""}"><label for=${id}>${field.label}</label>${control()}
    ${field.note ? html`<span class="note" id=${`${id}-note`}>${field.note}</span>` : null}
    ${problem ? html`<span class="problem" id=${`${id}-problem`}>${problem}</span>` : null}</div>`;
}

/** {of: the message of each field that the API names, others: what is left to say}. */
function problemsOf(failure, fields) {
  if (failure === null) return { of: {}, others: [] };
  const found = { of: {}, others: [] };
  for (const one of failure.errors ?? []) {
    const field = fields.find(({ name }) => one.field === name || one.field.startsWith(`${name}.`));
    const inside = field && one.field.slice(field.name.length + 1);
    if (!field) found.others.push(one.field ? `${one.field}: ${one.message}` : one.message);
    else found.of[field.name] = [found.of[field.name], inside ? `${inside}: ${one.message}` : one.message].filter(Boolean).join("; ");
  }
  if (!failure.errors?.length) found.others.push(failure.message);
  return found;
}

export const KEYS = [
  ["/", "search for a job"],
  ["g then o", "overview"], ["g then j", "jobs"], ["g then d", "dead letters"], ["g then s", "schedules"],
  ["g then l", "limits"], ["g then u", "subscriptions"], ["g then y", "syncs"], ["g then a", "alerts"], ["g then h", "thresholds"],
  ["g then r", "reports"], ["g then t", "audit"],
  ["r", "ask for the view's figures again"], ["?", "this list"], ["Esc", "close a question"],
];

export const WORDS = [
  ["dead letter", "a job that is not tried any more, or a message that is not ours, kept until somebody decides"],
  ["redrive", "a dead job runs again, as a new one"],
  ["lane", "what lets jobs run in order, or so many at once"],
  ["limit key", "the chat or mailbox that a limit counts for"],
  ["p95", "so long took 95 of 100 jobs at most"],
];

export function Keys({ on, setOn, close }) {
  const modal = useModal(close);
  return html`<dialog ...${modal} aria-labelledby="keys-title">
    <h2 id="keys-title">Keys and words</h2>
    <dl class="keys">${KEYS.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl>
    <label class="check"><input type="checkbox" checked=${on} onChange=${(event) => setOn(event.target.checked)} /> These keys work</label>
    <dl class="keys words">${WORDS.map(([word, what]) => html`<div><dt>${word}</dt><dd>${what}</dd></div>`)}</dl>
    <div class="buttons"><button type="button" class="primary" onClick=${close}>Close</button></div>
  </dialog>`;
}
