/**
 * Requests: the token, the deadline, what a refusal says, and the one poll that everybody asks with.
 * Invariant: what is thrown is a `Failure`, which knows whether and when to ask again.
 */

import { itemOf, startFields } from "./wire.js";

/** @import { Failure, Item, Net, Options, Start, Timing } from "./types.js" */

/** @type {Timing} */
const TIMING = {
  open: 2_000,
  early: 10_000,
  probe: 30_000,
  backoff: 1_000,
  poll: 1_000,
  wait: 25_000,
  heartbeat: 15_000,
  memory: 600_000,
};
const BACKOFF_MAX = 15_000;
const PAUSE_MAX_MS = 3_600_000; // to stay away for longer is a mistake, or hostile
const STALLED = 4; // so many times as long as for its beginning, an answer may take for its next part

/** @param {string} base @param {Options} options @returns {Net} */
export function createNet(base, options) {
  const { getToken, debug, fetch: ask = (...given) => fetch(...given) } = options;
  const timing = { ...TIMING, ...options.timing };
  const root = new URL(base.replace(/\/*$/, "/"), globalThis.location?.href);
  /** @type {Promise<string> | null} */
  let token = null;

  return {
    timing,
    WebSocket: options.WebSocket ?? globalThis.WebSocket,
    retry: timing.backoff,
    wait: timing.wait,
    open: timing.open,

    say(text) {
      if (debug) console.debug(`oncecast: ${text}`);
    },

    url(path, query = {}) {
      const url = new URL(path, root);
      for (const name in query) url.searchParams.set(name, String(query[name]));
      return url;
    },

    async token(renew = false) {
      if (!getToken) return null;
      if (renew || !token) token = Promise.resolve(getToken(renew));
      try {
        return await token;
      } catch (error) {
        token = null;
        throw { reason: `getToken failed: ${error}` };
      }
    },

    async ask(url, init = {}) {
      for (let tries = 0; ; tries += 1) {
        const bearer = await this.token(tries > 0);
        const headers = { ...init.headers, ...(bearer && { Authorization: `Bearer ${bearer}` }) };
        /** @type {Response} */
        let response;
        try {
          response = await ask(url, { cache: "no-store", ...init, headers });
        } catch (error) {
          throw { reason: init.signal?.aborted ? "no answer came in time" : "no connection" };
        }
        if (response.ok) return response;
        const failure = await refusal(response);
        if (failure.status !== 401 || !bearer || tries) throw failure;
      }
    },
  };
}

/** @param {Response} response @returns {Promise<Failure>} */
async function refusal(response) {
  const { status } = response;
  const { error } = await response.json().catch(() => ({})) ?? {};
  const retry = retryOf(response);
  return {
    reason: error ? `${error.code}: ${error.message}` : `refused with ${status}`,
    code: error?.code ?? null,
    status,
    fatal: refuses(status),
    retry,
    calm: retry > 0, // who says when to come back has no quarrel with the transport
  };
}

/** The milliseconds to stay away that an answer asks for: by a number of seconds, or a date. @param {Response} response */
function retryOf({ headers }) {
  const after = headers.get("Retry-After") ?? "";
  return pauseOf(Number(after) * 1000 || Date.parse(after) - Date.now());
}

/** @param {unknown} error of whatever kind: what a hostile answer makes the code throw, too @returns {Failure} */
export function failureOf(error) {
  return error instanceof Error ? { reason: String(error) } : /** @type {Failure} */ (error);
}

/** The milliseconds to stay away that a server asks for: a number, and no longer than a timer can be. @param {any} asked */
export function pauseOf(asked) {
  return Math.min(Math.max(asked, 0) || 0, PAUSE_MAX_MS);
}

/**
 * A timer of which at most one is set. Called, it is set anew, or with nothing taken off.
 * @returns {(task?: () => void, milliseconds?: number) => void}
 */
export function createTimer() {
  /** @type {any} */
  let timer;
  return (task, milliseconds) => {
    clearTimeout(timer);
    if (task) timer = setTimeout(task, milliseconds);
  };
}

/** Whether a status means that the same request would be refused again. @param {number} status */
export function refuses(status) {
  return status >= 400 && status < 500 && ![408, 409, 425, 429].includes(status);
}

const TEMPORARY = ["too_many_requests", "unavailable", "internal", "timeout", "slow"];

/** Whether an error may be another one next time. @param {string} code */
export function passes(code) {
  return TEMPORARY.includes(code);
}

/** @param {number} milliseconds @returns {Promise<void>} */
export function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/**
 * Full jitter: any time up to a ceiling that doubles, so that those who lost the same server don't return at once.
 * @param {number} first @param {number} attempt
 */
export function backoff(first, attempt) {
  return Math.random() * Math.min(BACKOFF_MAX, first * 2 ** Math.min(attempt, 16));
}

/**
 * Do something that ends when `outer` is aborted, or after so long; `more` gives it another while.
 * @template T
 * @param {number} milliseconds
 * @param {AbortSignal} outer
 * @param {(signal: AbortSignal, more: () => void) => Promise<T>} task
 */
export async function within(milliseconds, outer, task) {
  // A signal of its own: what listens to one that lives for long would pile up.
  const inner = new AbortController();
  const abort = () => inner.abort();
  const timer = createTimer();
  timer(abort, milliseconds);
  outer.addEventListener("abort", abort);
  if (outer.aborted) abort();
  try {
    return await task(inner.signal, () => timer(abort, STALLED * milliseconds));
  } finally {
    timer();
    outer.removeEventListener("abort", abort);
  }
}

/** A body as it comes. @param {Response} response */
export async function* texts({ body }) {
  const reader = body?.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let part; reader && !(part = await reader.read()).done; ) yield part.value;
  } catch {
    throw { reason: "the answer was cut off" };
  }
}

/**
 * @param {Net} net
 * @param {string[]} channels
 * @param {Start} start
 * @param {AbortSignal} outer
 * @param {number} [wait] milliseconds
 * @returns {Promise<{ items: [cursor: string, item: Item][], cursor: string, pause: number }>} in order, each with its
 *   place; and for how many milliseconds a server that stops asks to stay away
 */
export function poll(net, channels, start, outer, wait = 0) {
  const url = net.url(`channels/${channels}`, { ...startFields(start), ...(wait && { wait: wait / 1000 }) });
  return within(net.open + wait, outer, async (signal, more) => {
    const response = await net.ask(url, { signal });
    let body = "";
    for await (const text of texts(response)) {
      body += text;
      more();
    }
    // A hostile answer makes this throw one thing or another; it is a failure in any case.
    const { gap, gaps = gap ? [gap] : [], messages, cursor } = JSON.parse(body);
    return {
      items: [...gaps, ...messages].map((item) => [item.cursor ?? item.id, itemOf(item)]),
      cursor,
      pause: retryOf(response),
    };
  });
}
