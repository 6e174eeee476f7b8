// The form that asks for the admin key.

import { html, useEffect, useRef, useState } from "./html.js";
import { get, hasKey, setKey } from "./api.js";

export function SignIn({ done, reason }) {
  const [problem, setProblem] = useState(reason);
  const [busy, setBusy] = useState(false);
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  const submit = async (event) => {
    event.preventDefault();
    const key = field.current.value.trim();
    if (!key) return;
    setBusy(true);
    setKey(key);
    try {
      done(await get("me"));
    } catch (error) {
      setKey(null);
      setProblem(error.status === 401 ? "This key is not valid." : error.message);
      setBusy(false);
      field.current.select();
    }
  };
  return html`<main class="notice" id="content">
    <h1>Fleet Queue</h1>
    <form onSubmit=${submit}>
      <label class="field"><span>Admin key</span>
        <input ref=${field} type="password" autocomplete="off" spellcheck="false" aria-describedby="key-note" aria-invalid=${problem ? "true" : "false"} /></label>
      <p class="problem" role="alert">${problem}</p>
      <button type="submit" class="primary" disabled=${busy}>${busy ? "Signing in …" : "Sign in"}</button>
      <p id="key-note" class="note">The key is kept in this tab until it is closed, and goes to this server only, in a header.</p>
    </form></main>`;
}

/** {state: "asking" | "out" | "in", who, problem}: without a key App Service may have signed the person in. */
export async function findWho() {
  try {
    return { state: "in", who: await get("me") };
  } catch (error) {
    const problem = error.status === 401 ? (hasKey() ? "This key is not valid any more." : "") : error.message;
    return { state: "out", problem };
  }
}
