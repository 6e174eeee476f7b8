// The keyboard's shortcuts; they can be switched off, and rest while somebody types.

import { useEffect, useState } from "./html.js";
import { go } from "./routing.js";

const PLACE = "fleet-queue-shortcuts";
const VIEW_OF = {
  o: "overview", j: "jobs", d: "dead-letters", s: "schedules", l: "limits", u: "subscriptions", y: "syncs", a: "alerts", t: "audit",
  h: "thresholds", r: "reports",
};

function readOn() {
  try {
    return localStorage.getItem(PLACE) !== "off";
  } catch {
    return true;
  }
}

export function useKeys({ refresh, help }) {
  const [on, setOnState] = useState(readOn);
  useEffect(() => {
    let afterG = false;
    const pressed = (event) => {
      const typing = event.target.closest?.("input, textarea, select, dialog");
      if (!on || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (afterG && VIEW_OF[event.key]) go(VIEW_OF[event.key]);
      else if (event.key === "/") document.getElementById("search")?.focus();
      else if (event.key === "r") refresh();
      else if (event.key === "?") help();
      else if (event.key !== "g") { afterG = false; return; }
      afterG = event.key === "g";
      event.preventDefault();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, [on]);
  const setOn = (value) => {
    setOnState(value);
    try {
      localStorage.setItem(PLACE, value ? "on" : "off");
    } catch {
      // it holds until the page is left
    }
  };
  return { on, setOn };
}
