// What a class of failure means, and what a person does about it.

const ADVICE = {
  validation: ["What was asked is wrong, and stays wrong.", "Correct it where it was sent from and enqueue anew. A redrive fails again: discard it."],
  auth: ["It was refused for who we are, even with a new token.", "The error says what lacks: a permission, its consent, or the account's place in the chat. Then redrive."],
  "rate-limit": ["The other side was too busy, longer than the retries lasted.", "Redrive later, and slowly (a rate). If it keeps on, lower the queue's limits."],
  network: ["The other side was away, longer than the retries lasted.", "See whether it is back. Then redrive."],
  timeout: ["The other side did not answer in time.", "See whether it is back. Then redrive: a send is looked up before it is sent again."],
  uncertain: ["It may have been sent: the answer was lost, and nobody could tell.", "Redrive when the other side is back: it looks first whether it was sent."],
  unknown: ["A fault in the handler.", "Read the error and the logs with the correlation id. Fix it, then redrive."],
  "worker-lost": ["Its worker ended in the middle of it: it may have been sent.", "Look at that worker's logs (memory, time), then redrive: it looks first whether it was sent."],
  expired: ["It was not done when its time was over.", "Redrive only what is still wanted."],
  dependency: ["A job that it waited for did not succeed.", "Look at that job first. Then redrive this one."],
};

/** What is no job of ours cannot run, and what was refused as wrong is refused again. */
export const redriveHelps = (letter) => !letter.foreign && letter.errorClass !== "validation";
export const FOREIGN = "It is not one of our messages. Find its sender; there is nothing to redrive.";

/** [what it means, what to do] of an error class, or null. */
export const advice = (errorClass) => ADVICE[errorClass] ?? null;
