/** The tests' application in Svelte 5, with runes: `show(views)` mounts, changes and unmounts its views. */

import { setClient } from "oncecast/svelte";
import { mount } from "svelte";

import Application from "./Application.svelte";
import { cast } from "./lab.mjs";
import Runes from "./Runes.svelte";

setClient(cast);
mount(Application, { target: document.querySelector("main"), props: { View: Runes } });
