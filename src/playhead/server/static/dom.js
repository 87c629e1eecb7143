// Elements, made by hand: text only ever becomes a text node.

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  copy: "M9 9h10v10H9zM5 15V5h10",
  check: "M5 12.5l4.5 4.5L19 7.5",
  source: "M9 7l-5 5 5 5M15 7l5 5-5 5",
  rename: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  delete: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5",
  tool: "M14 6a4 4 0 0 0-5 5l-5 5 4 4 5-5a4 4 0 0 0 5-5l-3 3-3-1-1-3z",
  chevron: "M9 6l6 6-6 6",
};

export function element(name, kind, ...kids) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.append(...kids.filter((kid) => kid !== "" && kid !== undefined));
  return made;
}

export function button(label, act, kind = "") {
  const made = element("button", kind, label);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

/** A button that is only a picture; its label is read out, and shown while the mouse rests on it. */
export function iconButton(name, label, act) {
  const made = button(icon(name), act, `icon ${name}`);
  made.setAttribute("aria-label", label);
  made.title = label;
  return made;
}

export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", "aria-hidden": "true", class: "picture" })) picture.setAttribute(key, value);
  path.setAttribute("d", ICONS[name]);
  picture.append(path);
  return picture;
}

/** A random UUID; the browser's own function for that is there only on https and localhost. */
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
