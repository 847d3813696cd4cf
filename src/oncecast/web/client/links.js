/**
 * The four transports. Each is given a host with the places of its channels, reports what comes, and ends with `lost`;
 * whether and how to go on is the connection's to decide.
 * To add one, write a function that returns a `Link`, and name it in `LINKS`.
 */

import { openStream, pollLong, pollShort } from "./requests.js";
import { openSocket } from "./socket.js";

/** @import { Host, Link } from "./internal.js" */

/** By name, best first. @type {Record<string, (host: Host) => Link>} */
export const LINKS = { websocket: openSocket, sse: openStream, "long-poll": pollLong, "short-poll": pollShort };
