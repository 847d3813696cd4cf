/**
 * Bundle what the editor of the examples needs of Yjs into one module, with the licenses of what is in it:
 * `node yjs.mjs [--outfile=FILE]`. Without a FILE it is where the page looks for it, `examples/editor/page/yjs.js`.
 */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const NAMES = [
  "Doc",
  "UndoManager",
  "applyUpdate",
  "createAbsolutePositionFromRelativePosition",
  "createRelativePositionFromJSON",
  "createRelativePositionFromTypeIndex",
  "encodeStateAsUpdate",
  "mergeUpdates",
];

const here = fileURLToPath(new URL(".", import.meta.url));
const [given] = process.argv.slice(2);
const file = given?.replace("--outfile=", "") ?? `${here}../../examples/editor/page/yjs.js`;
const options = {
  stdin: { contents: `export { ${NAMES.join(", ")} } from "yjs";`, resolveDir: here },
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  logLevel: "warning",
};
const { metafile } = await build({ ...options, metafile: true, write: false });
const packages = new Set(Object.keys(metafile.inputs).flatMap((input) => input.match(/node_modules\/([^/]+)/)?.[1] ?? []));
const licenses = [...packages].map((name) => {
  const { version } = JSON.parse(readFileSync(`${here}node_modules/${name}/package.json`, "utf8"));
  return `${name} ${version}\n\n${readFileSync(`${here}node_modules/${name}/LICENSE`, "utf8").trim()}`;
});
await build({ ...options, outfile: file, banner: { js: `/*!\n${licenses.join("\n\n").replaceAll("*/", "* /")}\n*/` } });
