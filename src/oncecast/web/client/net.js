/**
 * Requests: the URL, the token, the deadline, what a refusal says, and the poll that links, subscriptions and `history`
 * ask with.
 * Invariant: what is thrown is a `Failure`, which says whether and when to ask again; and no promise outlives its
 * deadline.
 */

import { onAbort } from "./abort.js";
import { functionOf, numberOf } from "./options.js";
import { createDeadline, now, TIMER_MAX_MS } from "./time.js";
import { itemOf, startFields } from "./wire.js";

/** @import { Failure, Item, Net, Start } from "./internal.js" */
/** @import { Options, Timing } from "./types.js" */

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
  linger: 5_000,
  publish: 60_000,
};
const PAUSE_MAX_MS = 3_600_000; // to stay away for longer is a mistake, or hostile
const STALLED = 4; // an answer may take this many times the time for its beginning, for each next part
const TOKEN_MS = 30_000;
const RENEW_MS = 1_000; // between two renewals: a token may end as soon as it is given
const BODY_MAX = 2 ** 26; // characters of an answer: far above what a server sends, and a bound for memory

/** @param {string | URL} base @param {Options} options @returns {Net} */
export function createNet(base, options) {
  const { getToken, debug, fetch: ask = (...given) => fetch(...given) } = options;
  functionOf("getToken", getToken);
  functionOf("fetch", ask);
  functionOf("WebSocket", options.WebSocket);
  const timing = { ...TIMING };
  for (const [name, value] of Object.entries(options.timing ?? {})) {
    if (!(name in TIMING)) throw new TypeError(`timing has no "${name}": use ${Object.keys(TIMING).join(" ")}`);
    const least = name === "linger" ? 0 : 1;
    timing[/** @type {keyof Timing} */ (name)] = numberOf(`timing.${name}`, value, least, TIMER_MAX_MS);
  }
  const root = new URL(base, globalThis.location?.href);
  if (!/^https?:$/.test(root.protocol)) throw new TypeError(`the server's URL must begin with http: or https:, not ${root}`);
  root.pathname = root.pathname.replace(/(\/v1)?\/*$/, "/v1/");
  root.search = root.hash = "";
  /** The token as a promise, null without one. @type {Promise<string> | null} */
  let token = null;
  let renewedAt = -RENEW_MS;

  return {
    timing,
    WebSocket: options.WebSocket ?? globalThis.WebSocket,
    retry: timing.backoff,
    wait: timing.wait,
    open: timing.open,
    heartbeat: timing.heartbeat,
    announced: false,
    urlMax: Infinity,

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
      if (renew) token = null;
      const asked = (token ??= within(TOKEN_MS, undefined, async () => {
        const given = await getToken(renew);
        if (typeof given !== "string" || !given) throw "it gave no text";
        return given;
      }));
      try {
        return await asked;
      } catch (error) {
        if (token === asked) token = null;
        throw { reason: `getToken failed: ${/** @type {any} */ (error)?.reason ?? error}` };
      }
    },

    async renew() {
      const before = token && (await token);
      if (!getToken || now() - renewedAt < RENEW_MS) return null;
      renewedAt = now();
      const fresh = await this.token(true);
      return fresh === before ? null : fresh;
    },

    async ask(url, init = {}) {
      let used = null;
      for (let tries = 0; ; tries += 1) {
        // Of several requests that are refused at once, the first asks for another token.
        const bearer = await this.token(tries > 0 && token === used);
        used = token;
        const headers = { ...init.headers, ...(bearer && { Authorization: `Bearer ${bearer}` }) };
        /** @type {Response} */
        let response;
        try {
          response = await ask(url, { cache: "no-store", ...init, headers });
        } catch (error) {
          const { cause, message } = /** @type {any} */ (error) ?? {};
          throw { reason: init.signal?.aborted ? "no answer came in time" : `no connection (${cause?.code ?? cause?.message ?? message})` };
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
    calm: retry > 0, // a server that says when to come back has nothing against the transport
  };
}

/** The milliseconds to stay away that an answer asks for: by a number of seconds, or a date. @param {Response} response */
function retryOf({ headers }) {
  const after = headers.get("Retry-After") ?? "";
  const date = Date.parse(headers.get("Date") ?? "") || Date.now();
  return pauseOf(Number(after) * 1000 || Date.parse(after) - date);
}

/** The milliseconds to stay away that a server asks for: a number, and no longer than a timer can be. @param {any} asked */
export function pauseOf(asked) {
  return Math.min(Math.max(asked, 0) || 0, PAUSE_MAX_MS);
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

/**
 * Do something that ends when `outer` is aborted, or after a time; `more` grants it more time.
 * @template T
 * @param {number} milliseconds
 * @param {AbortSignal | undefined} outer
 * @param {(signal: AbortSignal, more: () => void) => Promise<T>} task
 */
export async function within(milliseconds, outer, task) {
  const inner = new AbortController();
  const abort = () => inner.abort();
  const deadline = createDeadline();
  deadline(abort, milliseconds);
  const off = onAbort(outer, abort);
  try {
    /** The task itself may wait for what never comes. @type {Promise<never>} */
    const late = new Promise((_, reject) => onAbort(inner.signal, () => reject({ reason: "no answer came in time" })));
    return await Promise.race([task(inner.signal, () => deadline(abort, STALLED * milliseconds)), late]);
  } finally {
    deadline();
    off();
    abort(); // what the task has left open
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
 * @param {AbortSignal | undefined} outer
 * @param {{ wait?: number, limit?: number }} [options] in milliseconds; in messages
 * @returns {Promise<{ items: [cursor: string, item: Item][], cursor: string, pause: number }>} in order, each with its
 *   place; and for how many milliseconds a server that stops asks to stay away
 */
export function poll(net, channels, start, outer, { wait = 0, limit } = {}) {
  const query = { ...startFields(start), ...(wait && { wait: wait / 1000 }), ...(limit && { limit }) };
  return within(net.open + wait, outer, async (signal, more) => {
    const response = await net.ask(net.url(`channels/${channels}`, query), { signal });
    let body = "";
    for await (const text of texts(response)) {
      body += text;
      if (body.length > BODY_MAX) throw { reason: `an answer has more than ${BODY_MAX} characters` };
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
