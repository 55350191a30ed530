// Pointer, wheel and keys -> the view.

const WHEEL = 0.0022; // of a pixel of wheel, in powers of e: a notch of 100 px zooms by 1.25
const GLIDE = 55; // ms in which a wheel's zoom goes on, 1 - 1/e of it
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Gestures {
  rest = 0; // of the zoom, in powers of e
  at = [0, 0];
  pointers = new Map();
  pointer = null; // where the mouse is, for the readout
  byPointer = false; // whether the focus was last moved by a pointer, not by the Tab key

  constructor(canvas, view, moved, commands) {
    Object.assign(this, { canvas, view, moved, commands });
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => ((this.pointer = null), moved()));
    canvas.addEventListener("dblclick", (event) => this.glide(Math.LN2, event.offsetX, event.offsetY));
    addEventListener("keydown", (event) => this.#key(event));
    addEventListener("pointerdown", () => (this.byPointer = true), { capture: true });
  }

  /** Whether fingers or a glide are at work. */
  get busy() {
    return this.rest !== 0 || this.pointers.size > 0;
  }

  /** Zoom by e^amount, in a few frames. */
  glide(amount, x = this.view.width / 2, y = this.view.height / 2) {
    this.at = [x, y];
    this.rest = Math.max(-4, Math.min(4, this.rest + amount));
    this.moved();
  }

  /** A frame's part of the glide. */
  step(ms) {
    if (!this.rest) return;
    const part = calm.matches || Math.abs(this.rest) < 0.004 ? this.rest : this.rest * (1 - Math.exp(-ms / GLIDE));
    this.rest -= part;
    this.view.zoom(Math.exp(part), ...this.at);
    this.moved();
  }

  #wheel(event) {
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? 33 : event.deltaMode === 2 ? 400 : 1;
    const amount = -event.deltaY * pixels * WHEEL * (event.ctrlKey ? 4 : 1); // a trackpad's pinch comes as ctrl + wheel
    this.glide(amount, event.offsetX, event.offsetY);
  }

  #down(event) {
    if (event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.rest = 0;
    this.canvas.focus({ preventScroll: true });
  }

  #move(event) {
    const here = [event.offsetX, event.offsetY];
    this.pointer = here;
    const before = this.pointers.get(event.pointerId);
    if (before) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const reach = ([x, y]) => Math.max(20, Math.hypot(x - other[0], y - other[1]));
        const middle = ([x, y]) => [(x + other[0]) / 2, (y + other[1]) / 2];
        const [from, to] = [middle(before), middle(here)];
        this.view.pan(to[0] - from[0], to[1] - from[1]);
        this.view.zoom(reach(here) / reach(before), ...to);
      } else this.view.pan(here[0] - before[0], here[1] - before[1]);
      this.pointers.set(event.pointerId, here);
    }
    this.moved();
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    if (event.pointerType !== "mouse") this.pointer = null;
    this.moved();
  }

  #key(event) {
    if (event.key === "Tab") this.byPointer = false;
    // text is typed; of a control that was reached by Tab, keys change the value; of one that was clicked, the view
    const own = event.target.closest?.(this.byPointer ? "[type=text], [type=number]" : "input, select");
    if (own && event.key === "Escape") this.canvas.focus({ preventScroll: true });
    if (event.ctrlKey || event.metaKey || event.altKey || own) return;
    const step = event.shiftKey ? 0.5 : 0.125;
    const { view } = this;
    const keys = {
      ArrowLeft: () => view.pan(step * view.width, 0),
      ArrowRight: () => view.pan(-step * view.width, 0),
      ArrowUp: () => view.pan(0, step * view.height),
      ArrowDown: () => view.pan(0, -step * view.height),
      "+": () => this.glide(0.5),
      "=": () => this.glide(0.5),
      "-": () => this.glide(-0.5),
      _: () => this.glide(-0.5),
      0: () => this.commands.home(),
      Home: () => this.commands.home(),
      f: () => this.commands.fit(),
      o: () => this.commands.outlines(),
      c: () => this.commands.panel(),
    };
    const act = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
    this.moved();
  }
}
