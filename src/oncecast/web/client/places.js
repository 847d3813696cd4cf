/**
 * Where each channel of a connection is.
 * Invariant: a place moves forwards, but where the server says that it was ahead of the log; what a link repeats is
 * dropped here.
 */

import { goesOn, parseCursor } from "./wire.js";

/** @import { Item, Place, Start, Tell } from "./internal.js" */

/** @param {Tell} tell */
export function createPlaces(tell) {
  /** @type {Map<string, Place>} */
  const places = new Map();
  return { places, add, item, raise };

  /** @param {string} channel @param {Start} at */
  function add(channel, at) {
    places.set(channel, { at, before: at });
  }

  /** A link has brought an item, which `cursor` is the place after. @param {string} channel @param {string} cursor @param {Item} item */
  function item(channel, cursor, item) {
    const place = places.get(channel);
    if (!place || !goesOn(cursor, place.at, item)) return;
    const { before } = place;
    place.at = place.before = cursor;
    tell("advance", channel, before, cursor, item);
  }

  /** Nothing of these channels lies before the cursor. @param {Iterable<string>} channels @param {string} cursor */
  function raise(channels, cursor) {
    for (const channel of channels) {
      const place = places.get(channel);
      if (!place || !goesOn(cursor, place.at)) continue;
      const { before } = place;
      if (!parseCursor(place.at)) place.before = cursor;
      place.at = cursor;
      tell("advance", channel, before, cursor);
    }
  }
}
