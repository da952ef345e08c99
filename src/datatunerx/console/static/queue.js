/* <dtx-queue>: the rows of what waits are dragged; where one is let go is told to the server, which knows what
   that means. The arrows beside each row do the same without this. */
"use strict";
customElements.define("dtx-queue", class extends HTMLElement {
  connectedCallback() {
    const row = (event) => event.target.closest?.("li[draggable]");
    this.addEventListener("dragstart", (event) => {
      this.held = row(event);
      this.held?.classList.add("held");
      this.toggleAttribute("data-island", true); // nothing is drawn anew under the hand
      event.dataTransfer.effectAllowed = "move";
    });
    this.addEventListener("dragover", (event) => {
      const over = row(event);
      if (!this.held || !over) return;
      event.preventDefault();
      const box = over.getBoundingClientRect();
      if (over !== this.held) over[event.clientY > box.top + box.height / 2 ? "after" : "before"](this.held);
    });
    this.addEventListener("drop", (event) => { event.preventDefault(); this.dropped = true; });
    this.addEventListener("dragend", () => this.end());
  }
  async end() {
    this.held?.classList.remove("held");
    this.toggleAttribute("data-island", false);
    if (this.dropped) {
      const order = [...this.querySelectorAll("li")].map((each) => each.dataset.name);
      await htmx.ajax("POST", this.dataset.url, { values: { order }, swap: "none" });
    } else document.dispatchEvent(new Event("dtx:changed"));
    this.held = this.dropped = null;
  }
});
