/** Each binding where a page is made on a server: prints what an idle channel renders. */

import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { createSSRApp, h } from "vue";
import { renderToString as renderVue } from "vue/server-renderer";

import { useChannel } from "oncecast/react";
import { channel } from "oncecast/svelte";
import { useChannel as useRefs } from "oncecast/vue";

const text = ({ status, messages }) => `${status} ${messages.length}`;
const plain = (html) => html.replace(/<.*?>/g, "");

const react = renderToString(createElement(() => createElement("p", null, text(useChannel("news", { last: 3 })))));

const vue = await renderVue(
  createSSRApp({
    setup() {
      const { status, messages } = useRefs("news", { last: 3 });
      return () => h("p", text({ status: status.value, messages: messages.value }));
    },
  }),
);

let svelte = "";
channel("news", { last: 3 }).subscribe((state) => (svelte = text(state)))();

console.log(JSON.stringify({ react: plain(react), svelte, vue: plain(vue) }));
