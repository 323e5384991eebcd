// Keyboard short-cuts.

const TOOLS = { b: "brush", e: "eraser", f: "fill", r: "rectangle", p: "polygon", i: "pick", l: "resample", h: "pan" };
const TYPING = "input:not([type=range]):not([type=checkbox]), select";

// on: {tool(name), class(number), undo(), redo(), hand(held), before(held), keys: {key: action}}
export function listen(on) {
  document.addEventListener("keydown", (event) => {
    if (event.target.matches(TYPING) || document.querySelector("dialog[open]")) return;
    if ((event.key === "Enter" || event.key === " ") && event.target.matches("button")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const graphic = event.getModifierState("AltGraph"); // how some keyboards write [ ] and \
    if ((event.ctrlKey || event.metaKey) && !graphic) {
      if (key === "z") (event.shiftKey ? on.redo : on.undo)();
      else if (key === "y") on.redo();
      else return;
    } else if (event.altKey && !graphic) {
      return;
    } else if (key === " ") {
      on.hand(true);
    } else if (key === "\\" || key === "c") {
      on.before(true);
    } else if (TOOLS[key]) {
      on.tool(TOOLS[key]);
    } else if (event.code === "Digit0" && event.shiftKey) {
      on.keys.fit();
    } else if (/^[0-9]$/.test(key)) {
      on.class((Number(key) + 9) % 10);
    } else if (on.keys[key]) {
      on.keys[key]();
    } else {
      return;
    }
    event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") on.hand(false);
    if (event.key === "\\" || event.key.toLowerCase() === "c") on.before(false);
  });
}
