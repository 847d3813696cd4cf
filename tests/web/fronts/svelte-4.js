/** The tests' application in Svelte 4. */

import { setClient } from "oncecast/svelte";

import Application from "./Application.svelte";
import { cast } from "./lab.mjs";
import View from "./View.svelte";

setClient(cast);
new Application({ target: document.querySelector("main"), props: { View } });
