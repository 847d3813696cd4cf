/** The tests' application in Svelte 5, with runes: `show(views)` mounts, changes and unmounts its views. */

import { setClient } from "oncecast/svelte";
import { mount } from "svelte";

import Application from "./RunesApplication.svelte";
import { cast } from "./lab.mjs";

setClient(cast);
mount(Application, { target: document.querySelector("main") });
