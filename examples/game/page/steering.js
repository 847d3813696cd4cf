/** Where the player wants to go: `[x, y]`, each from -1 to 1, by keys or by a finger on the arena. */

const KEYS = {
  ArrowLeft: [-1, 0], KeyA: [-1, 0], ArrowRight: [1, 0], KeyD: [1, 0],
  ArrowUp: [0, -1], KeyW: [0, -1], ArrowDown: [0, 1], KeyS: [0, 1],
};

/** `steer(x, y)` is called at each change; `from(event)` returns the vector from the player to a pointer, in lengths. */
export function listenToPlayer(canvas, steer, from) {
  const held = new Set();
  addEventListener("keydown", (event) => {
    if (!KEYS[event.code] || event.target instanceof HTMLInputElement) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // the arrows scroll the page
    if (!event.repeat) held.add(event.code);
    go();
  });
  addEventListener("keyup", ({ code }) => held.delete(code) && go());
  addEventListener("blur", () => {
    held.clear();
    go();
  });

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    point(event);
  });
  canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && point(event));
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => steer(0, 0));

  function go() {
    let [x, y] = [0, 0];
    for (const code of held) [x, y] = [x + KEYS[code][0], y + KEYS[code][1]];
    steer(Math.sign(x), Math.sign(y));
  }

  function point(event) {
    const [x, y] = from(event);
    const far = Math.hypot(x, y);
    if (far < 0.3) steer(0, 0); // it is there
    else steer(x / far, y / far);
  }
}
