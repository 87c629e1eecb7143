// Copying exactly what was said, and saying that it was copied.

import { icon } from "./dom.js";

const TOLD_MS = 1500;

/** @returns {Promise<boolean>} whether it is on the clipboard now */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyByCommand(text); // not https, or not allowed
  }
}

function copyByCommand(text) {
  let put = false;
  const answer = (event) => {
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
    put = true;
  };
  document.addEventListener("copy", answer, { once: true });
  document.execCommand("copy");
  document.removeEventListener("copy", answer);
  return put;
}

/** Copies, and lets the button say so for a moment. */
export async function copyFrom(button, text) {
  const copied = await copy(text);
  const before = [...button.childNodes], label = button.getAttribute("aria-label");
  if (button.dataset.told) return;
  button.dataset.told = copied ? "copied" : "failed";
  if (label) button.setAttribute("aria-label", copied ? "Copied" : "Could not copy");
  button.replaceChildren(label && copied ? icon("check") : copied ? "Copied" : "Could not copy");
  document.getElementById("told").textContent = copied ? "Copied" : "Could not copy";
  setTimeout(() => {
    delete button.dataset.told;
    if (label) button.setAttribute("aria-label", label);
    button.replaceChildren(...before);
    document.getElementById("told").textContent = "";
  }, TOLD_MS);
}
