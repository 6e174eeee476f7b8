// Where the page is: `#/jobs?queue=sync`. Filters live there, so that a link or a reload shows the same.

import { useEffect, useState } from "./html.js";

export function readPlace(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter(Boolean).map(decode);
  return { view: parts[0] ?? "overview", item: parts[1] ?? null, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The address of a view; empty values are left out. */
export function link(view, item = null, query = {}) {
  const path = [view === "overview" && !item ? "" : view, ...(item === null ? [] : [encodeURIComponent(item)])].join("/");
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== ""));
  return `#/${path}${given.size ? `?${given}` : ""}`;
}

export function go(view, item, query) {
  location.hash = link(view, item, query);
}

export function usePlace() {
  const [place, setPlace] = useState(readPlace);
  useEffect(() => {
    const moved = () => setPlace(readPlace());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return place;
}
