// Keeps an answer up to date: asks again after a while, less often after errors, and not while nobody looks.

import { useCallback, useEffect, useRef, useState } from "./html.js";

const LONGEST_SECONDS = 30;

/**
 * `load(signal)` gives the answer; it is asked anew when one of `inputs` changes, and every `seconds` (0: only then).
 * {answer, error, again}: the last answer stays while others fail.
 */
export function useAnswer(load, inputs, seconds = 0) {
  const [state, setState] = useState({ answer: null, error: null, key: null });
  const ask = useRef(() => {});
  const key = JSON.stringify(inputs);
  useEffect(() => {
    let timer = null;
    let failures = 0;
    let running = null;
    const next = () => {
      clearTimeout(timer);
      if (seconds === 0 || document.hidden) return;
      timer = setTimeout(run, Math.min(seconds * 2 ** failures, Math.max(LONGEST_SECONDS, seconds)) * 1000);
    };
    const run = async () => {
      clearTimeout(timer);
      running?.abort();
      const mine = new AbortController();
      running = mine;
      try {
        const answer = await load(mine.signal);
        if (mine.signal.aborted) return;
        failures = 0;
        setState({ answer, error: null, key });
      } catch (error) {
        if (mine.signal.aborted) return;
        failures += 1;
        setState((before) => ({ answer: before.key === key ? before.answer : null, error, key }));
      }
      running = null;
      next();
    };
    const looked = () => (document.hidden ? clearTimeout(timer) : seconds > 0 && run());
    ask.current = run;
    document.addEventListener("visibilitychange", looked);
    run();
    return () => {
      document.removeEventListener("visibilitychange", looked);
      clearTimeout(timer);
      running?.abort();
    };
  }, [key, seconds]);
  const again = useCallback(() => ask.current(), []);
  const current = state.key === key;
  return { answer: current ? state.answer : null, error: current ? state.error : null, again };
}

/** A list page by page: the first is kept up to date until a second one is shown. {items, error, more, again, loading}. */
export function usePages(load, inputs, seconds = 0) {
  const [rest, setRest] = useState({ key: null, items: [], next: null, error: null });
  const [loading, setLoading] = useState(false);
  const key = JSON.stringify(inputs);
  const mine = rest.key === key;
  const first = useAnswer((signal) => load(null, signal), inputs, mine ? 0 : seconds);
  const next = mine ? rest.next : first.answer?.next ?? null;
  const more = async () => {
    setLoading(true);
    try {
      const page = await load(next, undefined);
      setRest((before) => ({ key, items: [...(mine ? before.items : []), ...page.items], next: page.next, error: null }));
    } catch (error) {
      setRest((before) => ({ key, items: mine ? before.items : [], next, error }));
    }
    setLoading(false);
  };
  const again = () => {
    setRest({ key: null, items: [], next: null, error: null });
    first.again();
  };
  return {
    items: first.answer === null ? null : once([...first.answer.items, ...(mine ? rest.items : [])]),
    error: first.error ?? (mine ? rest.error : null),
    more: next === null ? null : more,
    loading,
    again,
  };
}

/** Rows that moved from one page to the next while somebody read are shown once. */
function once(items) {
  const seen = new Set();
  return items.filter(({ id }) => !seen.has(id) && seen.add(id));
}
