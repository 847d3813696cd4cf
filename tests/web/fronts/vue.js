/** The tests' application in Vue: `show(views)` mounts, changes and unmounts its views. */

import { createApp, h, shallowRef } from "vue";
import { clientKey, useChannel } from "oncecast/vue";

import { cast, textOf } from "./lab.mjs";

const View = {
  props: ["channel", "options", "blind"],
  setup(props) {
    const refs = useChannel(() => props.channel, () => props.options);
    const state = {};
    for (const name of Object.keys(refs)) Object.defineProperty(state, name, { get: () => refs[name].value });
    return () => h("pre", textOf(state, props.blind));
  },
};

const views = shallowRef([]);
globalThis.show = (next) => {
  views.value = next;
};
const Application = { render: () => views.value.map((view, key) => h(View, { key, ...view })) };
createApp(Application).provide(clientKey, cast).mount("main");
