/** `oncecast/vue`: a channel in Vue 3.3 or newer. The names are described in `vue.d.ts`. */

import { computed, getCurrentScope, hasInjectionContext, inject, onScopeDispose, shallowRef, toValue, watch } from "vue";

import { IDLE, defaultClient, setClient, storeOf } from "./base.js";

/** @import { ChannelState } from "./types.js" */

export { setClient };

/** @type {typeof import("./vue.js").clientKey} */
export const clientKey = Symbol("oncecast");

/** @type {typeof import("./vue.js").useClient} */
export const useClient = () => provided() ?? defaultClient();

/** @type {typeof import("./vue.js").useChannel} */
export const useChannel = (channel, options) => {
  if (!getCurrentScope()) throw new Error("useChannel must be called in a setup function or in an effectScope");
  const client = provided();
  const state = shallowRef(/** @type {ChannelState} */ (IDLE));
  let leave = () => {};
  watch(
    () => storeOf(toValue(channel), { ...toValue(options) }, client),
    (store) => {
      leave();
      const show = () => {
        state.value = store.get();
      };
      leave = store.hear(show);
      show();
    },
    { immediate: true },
  );
  onScopeDispose(() => leave());
  return {
    messages: computed(() => state.value.messages),
    last: computed(() => state.value.last),
    dropped: computed(() => state.value.dropped),
    gap: computed(() => state.value.gap),
    error: computed(() => state.value.error),
    status: computed(() => state.value.status),
  };
};

/** The client that a component above provides. */
function provided() {
  return hasInjectionContext() ? inject(clientKey, undefined) : undefined;
}
