/* <dtx-log run="RUN" src="/console/ns/NS/logs/RUN" ...> is the log pane; draw it with the macro `log` of
   live.html. Without `run` it says that there is none yet; when `run` changes it begins anew.
   Text only ever becomes text nodes. 2,000 lines are kept; older ones come as the reader scrolls up. */
"use strict";
(() => {
  const KEPT = 2000, NEAR = 40, AGAIN_MS = 2000;

  class Log extends HTMLElement {
    static observedAttributes = ["run"];
    connectedCallback() {
      this.pane = this.querySelector("[data-lines]");
      this.form = this.querySelector("form");
      this.words = this.form.elements.search;
      this.level = this.form.elements.level;
      this.followBox = this.form.elements.follow;
      this.note = this.querySelector("[data-note]");
      let typed = 0;
      this.form.addEventListener("input", (event) => {
        if (event.target === this.followBox) return this.setFollow(this.followBox.checked);
        clearTimeout(typed);
        typed = setTimeout(() => { this.keepUrl(); this.load(); }, 250);
      });
      this.form.addEventListener("submit", (event) => event.preventDefault());
      // Only the reader's own hand stops following; what we scroll ourselves does not.
      for (const kind of ["wheel", "touchmove", "keydown", "pointerdown"])
        this.pane.addEventListener(kind, () => (this.hand = Date.now()), { passive: true });
      this.pane.addEventListener("scroll", () => this.scrolled(), { passive: true });
      this.pane.addEventListener("click", (event) => this.clicked(event));
      this.load();
    }
    disconnectedCallback() { this.stop?.(); this.stop = null; }
    attributeChangedCallback(name, old, now) { if (this.pane && old !== now) this.load(); }
    get run() { return this.getAttribute("run"); }
    get follows() { return this.followBox.checked; }

    async load(around = /^#L(\d+)$/.exec(location.hash)?.[1]) {
      this.disconnectedCallback();
      const turn = (this.turn = {});
      this.first = this.end = 0;
      this.searching = Boolean(this.words.value.trim() || this.level.value);
      if (!this.run) return this.say(this.dataset.none);
      if (this.searching) return this.search(turn);
      const found = await this.get(around ? { around } : {});
      if (turn !== this.turn) return;
      if (!found) // a run has its name before it is there; a server may be away
        return setTimeout(() => { if (turn === this.turn && this.isConnected) this.load(around); }, AGAIN_MS);
      this.pane.replaceChildren();
      this.first = found.start;
      this.end = found.end;
      this.append(found.lines);
      this.showOpen(found.open);
      this.say(found.size ? "" : this.dataset.empty);
      if (around) {
        this.followBox.checked = false;
        const line = this.pane.querySelector(`[data-at="${around}"]`);
        line?.classList.add("chosen");
        line?.scrollIntoView({ block: "center" });
        if (found.end < found.size) return this.ending(found);
      }
      this.bottom();
      this.stop = dtxLive.follow(`log:${this.run}`, this.end, (message) => this.take(message));
    }
    take(message) {
      if (message.refused) return this.say(message.message);
      if (message.gap) this.append([[message.from, this.dataset.gap.replace("{n}", Math.ceil(message.gap / 1000)), "gap", 0]]);
      this.end = message.to;
      if (message.lines) { this.showOpen(null); this.append(message.lines); this.say(""); }
      if (message.open !== undefined) this.showOpen(message.open);
      if (this.follows) this.bottom();
    }
    async search(turn) {
      this.pane.replaceChildren();
      this.say(this.dataset.searching);
      let before = "", count = 0;
      while (turn === this.turn && count < KEPT) {
        const found = await this.get({ search: this.words.value, level: this.level.value, before });
        if (turn !== this.turn || !found) return;
        this.prepend(found.lines);
        count += found.lines.length;
        before = found.before;
        const share = found.size ? Math.round(100 * (1 - before / found.size)) : 100;
        this.say((before ? this.dataset.looked : this.dataset.found).replace("{n}", count).replace("{share}", share));
        if (!before) return;
      }
    }
    async older() {
      if (this.busy || !this.first || this.searching) return;
      this.busy = true;
      try {
        const found = await this.get({ before: this.first });
        if (!found) return;
        const line = this.pane.firstChild, before = line?.offsetTop;
        this.first = found.start;
        this.prepend(found.lines);
        if (line) this.pane.scrollTop += line.offsetTop - before; // the reader stays at the same line
      } finally { this.busy = false; }
    }
    async get(query) {
      const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
      try {
        const answer = await fetch(`${this.getAttribute("src")}?${asked}`, { headers: { "HX-Request": "true" } });
        if (answer.ok) return await answer.json();
        this.say(answer.status === 404 ? this.dataset.none : this.dataset.trouble);
      } catch { this.say(this.dataset.trouble); }
      return null;
    }

    row([at, text, level]) {
      const line = document.createElement("div");
      if (level) line.className = level;
      line.dataset.at = at;
      line.append(text || "\u200b");
      return line;
    }
    append(lines) {
      const fresh = document.createDocumentFragment();
      for (const line of lines) {
        if (line[3]) (fresh.lastChild ?? this.pane.lastChild)?.remove();
        fresh.append(this.row(line));
      }
      this.pane.append(fresh);
      if (this.follows) this.trim(() => this.pane.firstChild);
    }
    prepend(lines) {
      this.pane.prepend(...lines.map((line) => this.row(line)));
      if (!this.follows) this.trim(() => this.pane.lastChild);
    }
    trim(which) {
      let over = this.pane.childElementCount - KEPT;
      const older = which() === this.pane.firstChild;
      if (over <= 0) return;
      while (over-- > 0) which().remove();
      if (older) this.first = Number(this.pane.firstChild.dataset.at);
      else if (this.stop) { this.disconnectedCallback(); this.ending({}); } // what is below comes back with "follow"
    }
    showOpen(line) {
      this.pane.querySelector(".open")?.remove();
      if (!line) return;
      const made = this.row(line);
      made.classList.add("open");
      this.pane.append(made);
    }
    ending() { this.followBox.checked = false; }
    bottom() { if (this.follows) this.pane.scrollTop = this.pane.scrollHeight; }
    setFollow(on) {
      if (!on) return;
      if (location.hash) history.replaceState(history.state, "", location.pathname + location.search);
      if (this.stop) this.bottom(); else this.load("");
    }
    scrolled() {
      if (Date.now() - (this.hand || 0) > 1500) return;
      const left = this.pane.scrollHeight - this.pane.clientHeight - this.pane.scrollTop;
      if (left > NEAR) this.followBox.checked = false;
      else if (this.stop) this.followBox.checked = true;
      if (this.pane.scrollTop < 400) this.older();
    }
    clicked(event) {
      const line = event.target.closest("[data-at]");
      if (!line || getSelection().toString()) return;
      if (line.classList.contains("gap")) return this.load(line.dataset.at);
      if (this.searching) { // where it stands among the others
        this.words.value = this.level.value = "";
        this.keepUrl(`#L${line.dataset.at}`);
        return this.load();
      }
      this.pane.querySelector(".chosen")?.classList.remove("chosen");
      line.classList.add("chosen");
      this.keepUrl(`#L${line.dataset.at}`);
    }
    keepUrl(hash = "") {
      const url = new URL(location.href);
      for (const [name, input] of [["search", this.words], ["level", this.level]])
        input.value ? url.searchParams.set(name, input.value) : url.searchParams.delete(name);
      url.hash = hash;
      history.replaceState(history.state, "", url);
    }
    say(text) { this.note.textContent = text || ""; }
  }
  customElements.define("dtx-log", Log);
})();
