// What a class of failure means, and what a person does about it.

const ADVICE = {
  validation: ["What was asked is wrong, and stays wrong.", "Correct it at its source and enqueue anew. A redrive of the same payload fails again; discard it when that is done."],
  auth: ["Refused for who we are, even with a new token.", "Look at the app's permissions, its consent and its secret. Then redrive."],
  "rate-limit": ["The other side was too busy, longer than the retries lasted.", "Redrive later, and slowly (a rate). If it keeps on, lower the queue's limits."],
  network: ["The other side could not be reached, longer than the retries lasted.", "See whether it is back. Then redrive."],
  timeout: ["The other side did not answer in time.", "See whether it is back. Then redrive: a send is looked up before it is sent again."],
  uncertain: ["A send whose answer was lost, and nobody could tell whether it took effect.", "Look at the far end, then redrive: it looks again before it sends."],
  unknown: ["A fault in the handler.", "Read the error and the logs with the correlation id. Fix it, then redrive."],
  "worker-lost": ["Its worker ended each time in the middle of it.", "Look at that worker's logs (memory, time) before you redrive."],
  expired: ["It had not started when its time was over.", "See why the queue is behind. Redrive only what is still wanted."],
  dependency: ["A job that it waited for did not succeed.", "Look at that job first (related jobs). Then redrive this one."],
};

/** What is no job of ours cannot run, and what was refused as wrong is refused again. */
export const redriveHelps = (letter) => !letter.foreign && letter.errorClass !== "validation";
export const FOREIGN = "It is not one of our messages. Find its sender; there is nothing to redrive.";

/** [what it means, what to do] of an error class, or null. */
export const advice = (errorClass) => ADVICE[errorClass] ?? null;
