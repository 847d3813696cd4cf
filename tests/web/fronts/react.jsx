/** The tests' application in React: `show(views)` mounts, changes and unmounts its views; some are hidden. */

import * as React from "react";
import { createRoot } from "react-dom/client";
import { ClientProvider, useChannel } from "oncecast/react";

import { cast, textOf } from "./lab.mjs";

const { Activity = React.Fragment, StrictMode, useState } = React;

function View({ channel, options, blind }) {
  return <pre>{textOf(useChannel(channel, options), blind)}</pre>;
}

function Application() {
  const [views, show] = useState([]);
  globalThis.show = show;
  return views.map(({ hidden, ...view }, index) =>
    Activity === React.Fragment ? (
      <View key={index} {...view} />
    ) : (
      <Activity key={index} mode={hidden ? "hidden" : "visible"}>
        <View {...view} />
      </Activity>
    ),
  );
}

createRoot(document.querySelector("main")).render(
  <StrictMode>
    <ClientProvider client={cast}>
      <Application />
    </ClientProvider>
  </StrictMode>,
);
