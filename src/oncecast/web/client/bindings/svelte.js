/** `oncecast/svelte`: a channel as a store, for Svelte 4 and 5. The names are described in `svelte.d.ts`. */

import { defaultClient, setClient, storeOf } from "./base.js";

export { setClient };

/** @type {typeof import("./svelte.js").getClient} */
export const getClient = () => defaultClient();

/** @type {typeof import("./svelte.js").channel} */
export const channel = (name, options) => {
  const store = storeOf(name, options);
  return {
    subscribe(run) {
      const leave = store.hear(() => run(store.get()));
      run(store.get());
      return leave;
    },
  };
};
