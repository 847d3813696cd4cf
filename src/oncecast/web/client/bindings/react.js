"use client";
/** `oncecast/react`: a channel in a React component, 18 or newer. The names are described in `react.d.ts`. */

import { createContext, createElement, useContext, useMemo, useSyncExternalStore } from "react";

import { IDLE, defaultClient, setClient, storeOf } from "./base.js";

export { setClient };

const Context = createContext(/** @type {import("../types.js").Cast | null} */ (null));

/** @type {typeof import("./react.js").ClientProvider} */
export const ClientProvider = ({ client, children }) => createElement(Context.Provider, { value: client }, children);

/** @type {typeof import("./react.js").useClient} */
export const useClient = () => useContext(Context) ?? defaultClient();

/** @type {typeof import("./react.js").useChannel} */
export const useChannel = (channel, options) => {
  const provided = useContext(Context);
  // The values and not the object, which each render may replace. The component keeps its store, and so its place,
  // while React hides it.
  const { after, last, since, limit, client } = options ?? {};
  const store = useMemo(
    () => storeOf(channel, options, provided ?? undefined),
    [channel, after, last, since, limit, client, provided],
  );
  return useSyncExternalStore(store.hear, store.get, () => IDLE);
};
