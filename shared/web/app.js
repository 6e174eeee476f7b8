// The page: who is signed in, where it is, and what is around the views.

import { html, render, useCallback, useEffect, useErrorBoundary, useMemo, useRef, useState } from "./html.js";
import { onSignedOut, setKey } from "./api.js";
import { Keys, Question } from "./dialogs.js";
import { Header, Navigation, VIEWS } from "./frame.js";
import { useKeys } from "./keys.js";
import { Page } from "./parts.js";
import { usePlace } from "./routing.js";
import { findWho, SignIn } from "./sign_in.js";

const SAID_SECONDS = 8;

function App() {
  const [session, setSession] = useState({ state: "asking" });
  useEffect(() => { findWho().then(setSession); }, []);
  useEffect(() => onSignedOut(() => {
    setKey(null);
    setSession((before) => (before.state === "in" ? { state: "out", problem: "Your key is not valid any more." } : before));
  }), []);
  if (session.state === "asking") return html`<p class="loading" role="status">Loading …</p>`;
  if (session.state === "out") return html`<${SignIn} reason=${session.problem} done=${(who) => setSession({ state: "in", who })} />`;
  const leave = () => { setKey(null); setSession({ state: "out", problem: "" }); };
  return html`<${Frame} who=${session.who} leave=${leave} />`;
}

function Frame({ who, leave }) {
  const place = usePlace();
  const [utc, setUtc] = useState(false);
  const [said, setSaid] = useState(null);
  const [question, setQuestion] = useState(null);
  const [showsKeys, setShowsKeys] = useState(false);
  const say = useCallback((text, isError = false) => setSaid({ text, isError }), []);
  const confirm = useCallback((asked) => new Promise((resolve) => {
    setQuestion({ asked, answer: (values) => { setQuestion(null); resolve(values); } });
  }), []);
  const refresh = useRef(() => {});
  const page = useMemo(() => ({ utc, who, say, confirm, onRefresh: (call) => { refresh.current = call; } }), [utc, who]);
  const keys = useKeys({ refresh: () => refresh.current(), help: () => setShowsKeys(true) });
  useEffect(() => {
    if (said === null || said.isError) return undefined;
    const timer = setTimeout(() => setSaid(null), SAID_SECONDS * 1000);
    return () => clearTimeout(timer);
  }, [said]);
  const view = VIEWS[place.view] ?? VIEWS.nowhere;
  const Shown = place.item === null ? view.shows : view.showsOne ?? VIEWS.nowhere.shows;
  useFocus(place, view.title);
  return html`<${Page.Provider} value=${page}><div class="frame">
    <a class="skip" href="#content" onClick=${skip}>Skip to content</a>
    <${Header} who=${who} leave=${leave} utc=${utc} setUtc=${setUtc} help=${() => setShowsKeys(true)} />
    <${Navigation} place=${place} />
    <main id="content" tabindex="-1"><${Guard} key=${`${place.view}/${place.item}`}><${Shown} place=${place} item=${place.item} /><//></main>
    <div class="said" role="status" aria-live="polite">${said && !said.isError ? html`<p>${said.text}</p>` : null}</div>
    <div class="said" role="alert">${said?.isError ? html`<p class="bad">${said.text} <button type="button" onClick=${() => setSaid(null)}>Close</button></p>` : null}</div>
    ${question ? html`<${Question} question=${question.asked} answer=${question.answer} />` : null}
    ${showsKeys ? html`<${Keys} on=${keys.on} setOn=${keys.setOn} close=${() => setShowsKeys(false)} />` : null}
  </div><//>`;
}

function skip(event) {
  event.preventDefault();
  document.querySelector("#content h1")?.focus();
}

/** A new view's title takes the focus, so that a screen reader reads on from there; filters leave it where it is. */
function useFocus(place, title) {
  const first = useRef(true);
  useEffect(() => {
    document.title = `${place.item ? `${title} ${place.item}` : title} · Fleet Queue`;
    if (!first.current) {
      document.querySelector("#content h1")?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [place.view, place.item]);
}

/** A fault of one view leaves the others usable. */
function Guard({ children }) {
  const [error, reset] = useErrorBoundary((fault) => console.error(fault));
  if (!error) return children;
  return html`<div><h1 tabindex="-1">This view has a fault</h1><div class="failure" role="alert"><p>${String(error)}</p>
    <button type="button" onClick=${reset}>Show it again</button></div></div>`;
}

render(html`<${App} />`, document.getElementById("app"));
