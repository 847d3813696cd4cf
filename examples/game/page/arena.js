/**
 * The arena on a canvas. It draws 60 times a second what comes 20 times a second: each player moves from the place in the
 * state before the last to that in the last one, so what is shown is a twentieth of a second old.
 */

export const WIDTH = 16;
export const HEIGHT = 9;
const STATE_MS = 50;

export function createArena(canvas) {
  const context = canvas.getContext("2d");
  let states = []; // the last two
  let came = 0; // when the last one came
  let me = "";
  const arena = { take, placeOf, from, get last() { return states.at(-1); }, set me(id) { me = id; } };
  requestAnimationFrame(draw);
  return arena;

  function take(state) {
    states = [...states.slice(-1), state];
    came = performance.now();
  }

  /** Return where a player is shown, `[x, y]`. */
  function placeOf(id) {
    const [before, after] = [states.at(0), states.at(-1)].map((state) => state?.players.find((player) => player[0] === id));
    if (!after) return null;
    const [, , x, y] = before ?? after;
    const share = Math.min(1, (performance.now() - came) / STATE_MS);
    return [x + (after[2] - x) * share, y + (after[3] - y) * share];
  }

  /** Return the vector from the own player to where a pointer is. */
  function from({ offsetX, offsetY }) {
    const [x, y] = placeOf(me) ?? [WIDTH / 2, HEIGHT / 2];
    return [(offsetX / canvas.clientWidth) * WIDTH - x, (offsetY / canvas.clientHeight) * HEIGHT - y];
  }

  function draw() {
    requestAnimationFrame(draw);
    const scale = fit();
    const style = getComputedStyle(canvas);
    context.clearRect(0, 0, WIDTH, HEIGHT);
    const state = states.at(-1);
    if (!state) return;
    context.fillStyle = style.getPropertyValue("--amber");
    for (const [x, y] of state.dots) disc(x, y, 0.16);
    for (const [id, name] of state.players) {
      const [x, y] = placeOf(id);
      context.fillStyle = colourOf(id);
      disc(x, y, 0.42);
      if (id === me) {
        context.strokeStyle = style.color;
        context.lineWidth = 0.09;
        context.stroke();
      }
      context.font = `${Math.max(0.42, 13 / scale)}px ${style.fontFamily}`; // never below 13 px of the screen
      context.textAlign = x < 1.5 ? "left" : x > WIDTH - 1.5 ? "right" : "center";
      context.fillStyle = style.color;
      context.fillText(name, x, y < 1 ? y + 0.95 : y - 0.6);
    }
  }

  function disc(x, y, radius) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }

  /** Give the canvas the pixels of the screen, and return how many of the page's a length has. */
  function fit() {
    const dense = devicePixelRatio;
    const [width, height] = [Math.round(canvas.clientWidth * dense), Math.round(canvas.clientHeight * dense)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.setTransform(width / WIDTH, 0, 0, height / HEIGHT, 0, 0);
    return canvas.clientWidth / WIDTH;
  }
}

/** Return a player's colour, the same in every page. */
export function colourOf(id) {
  return `hsl(${(parseInt(id.slice(0, 4), 16) * 137) % 360} 62% 50%)`;
}
