// Talks to the admin API. The key stays in this tab: in sessionStorage, and in the header of each request.

const ROOT = location.pathname.replace(/\/dashboard\/?$/, "/");
const PLACE = "fleet-queue-key";
const listeners = new Set();
let kept = null;

export class ApiError extends Error {
  /** `status` 0: no answer came. `errors` name the wrong fields. */
  constructor(status, message, errors = []) {
    super(message);
    this.status = status;
    this.errors = errors;
  }
}

function readKey() {
  try {
    return sessionStorage.getItem(PLACE);
  } catch {
    return null; // storage is switched off: the key lives as long as the page
  }
}

export function setKey(key) {
  kept = key;
  try {
    if (key === null) sessionStorage.removeItem(PLACE);
    else sessionStorage.setItem(PLACE, key);
  } catch {
    // as above
  }
}

export const hasKey = () => (kept ?? readKey()) !== null;

/** Calls back whenever an answer says that nobody is signed in; returns what ends that. */
export function onSignedOut(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The answer's JSON (null when it is empty). Throws ApiError. */
export async function ask(method, path, { query = {}, body, signal } = {}) {
  const address = new URL(ROOT + path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") address.searchParams.set(name, value);
  }
  const headers = { accept: "application/json" };
  const key = kept ?? readKey();
  if (key !== null) headers["x-admin-key"] = key;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  let text;
  try {
    response = await fetch(address, {
      method, headers, signal, cache: "no-store", credentials: "same-origin", redirect: "manual",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (response.type === "opaqueredirect") throw new ApiError(0, "Your sign-in has ended. Reload the page.");
  const document = parse(text);
  if (response.ok) return document;
  if (response.status === 401) listeners.forEach((listener) => listener());
  throw new ApiError(response.status, document?.detail ?? `The server answered ${response.status}.`, document?.errors ?? []);
}

function parse(text) {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

export const get = (path, query, signal) => ask("GET", path, { query, signal });
export const post = (path, body, query) => ask("POST", path, { body, query });
export const segment = (text) => encodeURIComponent(text);
