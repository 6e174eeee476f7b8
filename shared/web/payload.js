// A payload in a form: JSON in a text field.

import { ApiError } from "./api.js";
import { json } from "./format.js";

export const writePayload = (payload) => (payload ? json(payload) : "");

export function readPayload(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ApiError(0, "The payload is no JSON.", [{ field: "payload", message: `it is no JSON: ${error.message}` }]);
  }
}
