/**
 * Bundles an application as its authors would: `node build.mjs ENTRY OUTPUT FOLDER [VERSION]`, where FOLDER has the
 * `node_modules` of the application, and VERSION is an older framework in place of the newest one, like `react-18`.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { build } from "../../../scripts/web/node_modules/esbuild/lib/main.js";

const [entry, outfile, folder, version] = process.argv.slice(2);
const modules = join(folder, "node_modules");
const [framework, number] = version?.split("-") ?? [];

const svelte = {
  name: "svelte",
  setup(bundler) {
    bundler.onLoad({ filter: /\.svelte$/ }, async ({ path }) => {
      const name = framework === "svelte" ? version : "svelte";
      const package_ = JSON.parse(await readFile(join(modules, name, "package.json"), "utf8"));
      const at = package_.exports["./compiler"].default;
      const { compile } = await import(pathToFileURL(join(modules, name, at)).href);
      const { js } = compile(await readFile(path, "utf8"), { filename: path, generate: number === "4" ? "dom" : "client" });
      return { contents: js.code, loader: "js", resolveDir: folder };
    });
  },
};

const aliases = {
  react: { react: "react-18", "react-dom": "react-dom-18" },
  svelte: { svelte: "svelte-4" },
};
await build({
  entryPoints: [entry],
  outfile,
  bundle: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxDev: true,
  conditions: ["browser", "development"],
  define: {
    "process.env.NODE_ENV": '"development"', // StrictMode mounts twice in development alone
    __VUE_OPTIONS_API__: "false",
    __VUE_PROD_DEVTOOLS__: "false",
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
  },
  absWorkingDir: folder,
  nodePaths: [modules],
  alias: aliases[framework] ?? {},
  plugins: [svelte],
  logLevel: "warning",
});
