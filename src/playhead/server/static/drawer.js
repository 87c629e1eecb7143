// The list of threads on narrow screens: a drawer over the page, which nothing behind can be reached while it is open.

const NARROW = matchMedia("(max-width: 48rem)");

export class Drawer {
  open = false;

  constructor({ side, rest, veil, menu, close }) {
    Object.assign(this, { side, rest, veil, menu });
    menu.addEventListener("click", () => this.show(true));
    close.addEventListener("click", () => this.show(false));
    veil.addEventListener("click", () => this.show(false));
    side.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.open) this.show(false);
    });
    NARROW.addEventListener("change", () => this.show(false));
    this.show(false);
  }

  get isNarrow() {
    return NARROW.matches;
  }

  show(open) {
    const was = this.open;
    this.open = open && NARROW.matches;
    this.side.inert = NARROW.matches && !this.open;
    this.rest.inert = this.open;
    this.side.classList.toggle("open", this.open);
    this.veil.hidden = !this.open;
    this.menu.setAttribute("aria-expanded", String(this.open));
    if (this.open) (this.side.querySelector("[aria-current]") ?? this.side.querySelector("button")).focus();
    else if (was) this.menu.focus();
  }
}

/** Ask for a yes or no. */
export function sure(dialog, question) {
  dialog.querySelector("p").textContent = question;
  return new Promise((answer) => {
    const [no, yes] = dialog.querySelectorAll("button");
    dialog.returnValue = "";
    no.onclick = () => dialog.close("no");
    yes.onclick = () => dialog.close("yes");
    dialog.onclose = () => answer(dialog.returnValue === "yes");
    dialog.showModal();
  });
}
