/**
 * What goes over the network besides the messages, as text and in bytes: heads of requests and answers, events, and
 * the bits before a WebSocket's payload. Nothing here touches the document.
 *
 * A page can't read the bytes of its own requests. Their heads are composed here from what the browser says of itself,
 * without the fields that it adds unseen (`Sec-…`, `Referer`), so the figures are a little below the truth. TCP, IP and
 * TLS are not counted.
 */

const utf8 = new TextEncoder();

/** The first line and `Date` differ in no byte that matters: an answer 101 of this server, RFC 6455 §4.2.2. */
const SWITCHING =
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
  "Sec-WebSocket-Accept: (28 characters, a hash of the key)\r\nSec-WebSocket-Protocol: oncecast.v1\r\n\r\n";

/**
 * @typedef {object} Browser
 * @property {string} userAgent
 * @property {readonly string[]} languages
 *
 * @typedef {object} Part a field of a frame's head
 * @property {string} name
 * @property {string} bits
 * @property {string} means
 */

/** @param {string} text @returns {number} its bytes in UTF-8 */
export function size(text) {
  return utf8.encode(text).length;
}

/**
 * The head of a GET as a browser sends it.
 * @param {URL} url
 * @param {string} accept the header `Accept`, or "" for the handshake of a WebSocket
 * @param {Browser} browser
 */
export function requestHead(url, accept, { userAgent, languages }) {
  const fields = [
    `GET ${url.pathname}${url.search} HTTP/1.1`,
    `Host: ${url.host}`,
    accept ? "Connection: keep-alive" : "Connection: Upgrade",
    ...(accept ? [`Accept: ${accept}`] : []),
    `User-Agent: ${userAgent}`,
    "Accept-Encoding: gzip, deflate, br, zstd",
    `Accept-Language: ${languages.join(",")}`,
    "Cache-Control: no-cache",
  ];
  if (!accept) {
    fields.push(
      "Upgrade: websocket",
      `Origin: ${url.protocol.replace("ws", "http")}//${url.host}`,
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: (24 characters at random)",
      "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
      "Sec-WebSocket-Protocol: oncecast.v1",
    );
  }
  return `${fields.join("\r\n")}\r\n\r\n`;
}

/**
 * The head of an answer, as far as a page may read it.
 * @param {number} status
 * @param {string} reason
 * @param {Iterable<[string, string]>} headers
 */
export function answerHead(status, reason, headers) {
  const fields = Array.from(headers, ([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status}${reason && ` ${reason}`}\r\n${fields.join("")}\r\n`;
}

/** The answer to the handshake of a WebSocket, which a page can't read. */
export function switchingHead() {
  return SWITCHING;
}

/**
 * An event as it stands in the stream (WHATWG HTML §9.2.6).
 * @param {{type: string, id: string, data: string}} event
 */
export function eventText({ type, id, data }) {
  const lines = data.split("\n").map((line) => `data: ${line}\n`);
  return `${id && `id: ${id}\n`}${type === "message" ? "" : `event: ${type}\n`}${lines.join("")}\n`;
}

/**
 * The bytes before a payload in a frame (RFC 6455 §5.2).
 * @param {number} length of the payload, in bytes
 * @param {boolean} masked whether a client sends it
 */
export function frameHeadBytes(length, masked) {
  return 2 + (length > 65_535 ? 8 : length > 125 ? 2 : 0) + (masked ? 4 : 0);
}

/**
 * The fields before a payload in a whole text frame, bit by bit (RFC 6455 §5.2).
 * @param {number} length of the payload, in bytes
 * @param {boolean} masked whether a client sends it
 * @returns {Part[]}
 */
export function frameParts(length, masked) {
  const bits = (/** @type {number} */ value, /** @type {number} */ width) => value.toString(2).padStart(width, "0");
  const short = length > 65_535 ? 127 : length > 125 ? 126 : length;
  const parts = [
    { name: "FIN", bits: "1", means: "the last fragment of its message" },
    { name: "RSV", bits: "000", means: "no extension has changed the payload" },
    { name: "opcode", bits: "0001", means: "text" },
    { name: "MASK", bits: masked ? "1" : "0", means: masked ? "from a client: masked" : "from the server: as it is" },
    { name: "length", bits: bits(short, 7), means: short > 125 ? "it follows" : `${length} bytes of payload` },
  ];
  if (short > 125) {
    const width = short === 126 ? 16 : 64;
    parts.push({ name: "long length", bits: bits(length, width), means: `${length} bytes of payload` });
  }
  if (masked) parts.push({ name: "key", bits: "…32…", means: "XOR each byte with it: no cache takes it for HTTP" });
  return parts;
}

/**
 * The value that a share of others does not exceed; `null` of none.
 * @param {readonly number[]} values
 * @param {number} share from 0 to 1
 */
export function percentile(values, share) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? sorted[0];
}

/**
 * The seconds between two polls at which their heads cost as many bytes a second as a stream's own.
 * @param {number} poll bytes of the heads of a request and its answer
 * @param {number} each bytes that a stream adds to each message
 * @param {number} rate messages a second
 */
export function evenInterval(poll, each, rate) {
  return poll / (each * rate);
}
