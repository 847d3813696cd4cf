/**
 * A proxy of the kind that stands between a client and its server: it refuses, swallows, holds back and cuts, by the
 * kind of request. Owns what it does to each connection; a rule is a fault, or a function that gives one each time.
 */

import http from "node:http";
import net from "node:net";

/**
 * @typedef {object} Fault
 * @property {number} [status] refuse with it, as a proxy does: with a page of its own
 * @property {number} [retryAfter] seconds, to come back after
 * @property {boolean} [silent] take the request and never answer
 * @property {boolean} [hold] keep the answer back until it has ended
 * @property {number} [cutMs] cut the connection so long after the answer began
 * @property {number} [cutBytes] cut the connection after so many bytes of the answer
 * @property {number} [stallBytes] let only so many bytes of the answer through, and keep the connection
 * @property {boolean} [lost] pass the request on, and drop the answer
 */

/** @typedef {"websocket" | "sse" | "long-poll" | "short-poll" | "publish"} Kind */

export class Proxy {
  /** @type {Partial<Record<Kind, Fault | (() => Fault)>>} */
  rules = {};
  /** How many requests of each kind have come. @type {Record<string, number>} */
  requests = {};
  /** The last request of each kind. @type {Record<string, http.IncomingMessage>} */
  last = {};
  /** Nothing passes any more, and no connection ends. */
  frozen = false;
  #sockets = new Set();

  /** @param {string} target the server's origin */
  constructor(target) {
    this.target = new URL(target);
    this.server = http.createServer((request, response) => this.#forward(request, response));
    this.server.on("upgrade", (request, socket, head) => this.#tunnel(request, socket, head));
    this.server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  async start() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return this;
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}/v1`;
  }

  /** Cut every connection. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop() {
    this.cut();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** @param {http.IncomingMessage} request @returns {Fault} */
  #fault(request) {
    const kind = kindOf(request);
    this.requests[kind] = (this.requests[kind] ?? 0) + 1;
    this.last[kind] = request;
    const rule = this.rules[kind] ?? {};
    return typeof rule === "function" ? rule() : rule;
  }

  #forward(request, response) {
    const fault = this.#fault(request);
    if (fault.silent || this.frozen) return;
    const after = fault.retryAfter ? { "Retry-After": fault.retryAfter } : {};
    if (fault.status) {
      return response.writeHead(fault.status, { "Content-Type": "text/html", ...after }).end("<p>no</p>");
    }
    const { method, url, headers } = request;
    const options = { host: this.target.hostname, port: this.target.port, path: url, method, headers, agent: false };
    const onward = http.request(options, (answer) => {
      if (fault.lost) return answer.resume().on("end", () => request.socket.destroy());
      const held = [];
      if (!fault.hold) response.writeHead(answer.statusCode, { ...answer.headers, ...after });
      response.flushHeaders();
      const write = limited(fault, (data) => this.frozen || response.write(data), () => request.socket.destroy());
      let passed = 0;
      answer.on("data", (data) => {
        passed += data.length;
        if (fault.hold) held.push(data);
        else write(data);
      });
      answer.on("end", () => {
        if (this.frozen) return;
        if (fault.hold) response.writeHead(answer.statusCode, { ...answer.headers, ...after }).write(Buffer.concat(held));
        if (!(passed >= fault.stallBytes)) response.end();
      });
      answer.on("error", () => request.socket.destroy());
    });
    request.pipe(onward);
    onward.on("error", () => request.socket.destroy());
    response.on("close", () => onward.destroy());
  }

  #tunnel(request, socket, head) {
    const fault = this.#fault(request);
    if (fault.silent || this.frozen) return;
    const refusal = `HTTP/1.1 ${fault.status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;
    if (fault.status) return socket.end(refusal);
    const onward = net.connect(Number(this.target.port), this.target.hostname, () => {
      const lines = [`${request.method} ${request.url} HTTP/1.1`];
      for (let index = 0; index < request.rawHeaders.length; index += 2) {
        lines.push(`${request.rawHeaders[index]}: ${request.rawHeaders[index + 1]}`);
      }
      onward.write(`${lines.join("\r\n")}\r\n\r\n`);
      onward.write(head);
      socket.pipe(onward);
    });
    const write = limited(fault, (data) => this.frozen || socket.write(data), () => socket.destroy());
    onward.on("data", write);
    onward.on("error", () => socket.destroy());
    onward.on("close", () => this.frozen || socket.destroy());
    socket.on("error", () => onward.destroy());
    socket.on("close", () => onward.destroy());
  }
}

/** @param {http.IncomingMessage} request @returns {Kind} */
export function kindOf({ method, url, headers }) {
  if (headers.upgrade) return "websocket";
  if (method === "POST") return "publish";
  if (headers.accept?.includes("text/event-stream")) return "sse";
  return url.includes("wait=") ? "long-poll" : "short-poll";
}

/** `write`, with the fault's cut or stall in its way. */
function limited({ cutMs, cutBytes = Infinity, stallBytes = Infinity }, write, cut) {
  let passed = 0;
  let timer;
  return (data) => {
    if (cutMs !== undefined) timer ??= setTimeout(cut, cutMs);
    const part = data.subarray(0, Math.max(0, Math.min(cutBytes, stallBytes) - passed));
    passed += data.length;
    if (part.length) write(part);
    if (passed >= cutBytes) setImmediate(cut);
  };
}
