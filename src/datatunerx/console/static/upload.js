/* <dtx-upload>: files to the server in parts, one after the other; each can be cancelled and gone on with, in
   this page or, as the server knows a file by its digest, in a later one. Texts and names come from the page. */
"use strict";
(() => {
  const PART = 4 << 20, SLICE = 2 << 20, AGAIN_MS = 1000, TRIES = 60;
  const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

  // SHA-256 of what comes piece by piece: the browser's own wants a file in memory as a whole.
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const bits = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  const K = Int32Array.from(primes, (p) => bits(Math.cbrt(p)));
  class Sha256 {
    h = Int32Array.from(primes.slice(0, 8), (p) => bits(Math.sqrt(p)));
    w = new Int32Array(64);
    rest = new Uint8Array(64);
    held = 0;
    length = 0;
    update(bytes) {
      let at = 0;
      this.length += bytes.length;
      if (this.held) {
        at = Math.min(64 - this.held, bytes.length);
        this.rest.set(bytes.subarray(0, at), this.held);
        this.held += at;
        if (this.held < 64) return;
        this.block(this.rest, 0);
      }
      for (; at + 64 <= bytes.length; at += 64) this.block(bytes, at);
      this.held = bytes.length - at;
      this.rest.set(bytes.subarray(at));
    }
    block(b, at) {
      const w = this.w, h = this.h;
      for (let i = 0; i < 16; i++, at += 4) w[i] = (b[at] << 24) | (b[at + 1] << 16) | (b[at + 2] << 8) | b[at + 3];
      for (let i = 16; i < 64; i++) {
        const x = w[i - 15], y = w[i - 2];
        const s = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
        const t = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
        w[i] = (w[i - 16] + s + w[i - 7] + t) | 0;
      }
      let [a, c, d, e, f, g, i, j] = h;
      for (let n = 0; n < 64; n++) {
        const s = ((f >>> 6) | (f << 26)) ^ ((f >>> 11) | (f << 21)) ^ ((f >>> 25) | (f << 7));
        const one = (j + s + ((f & g) ^ (~f & i)) + K[n] + w[n]) | 0;
        const t = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
        const two = (t + ((a & c) ^ (a & d) ^ (c & d))) | 0;
        j = i; i = g; g = f; f = (e + one) | 0; e = d; d = c; c = a; a = (one + two) | 0;
      }
      h[0] += a; h[1] += c; h[2] += d; h[3] += e; h[4] += f; h[5] += g; h[6] += i; h[7] += j;
    }
    hex() {
      const total = this.length, end = new Uint8Array(this.held < 56 ? 64 - this.held : 128 - this.held);
      end[0] = 128;
      const view = new DataView(end.buffer);
      view.setUint32(end.length - 8, Math.floor(total / 2 ** 29));
      view.setUint32(end.length - 4, (total << 3) >>> 0);
      this.update(end);
      return [...this.h].map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
    }
  }

  function size(bytes) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let n = 0;
    for (; bytes >= 1000 && n < 4; n++) bytes /= 1000;
    return `${bytes < 10 && n ? bytes.toFixed(1) : Math.round(bytes)} ${units[n]}`;
  }
  function time(seconds) {
    if (!isFinite(seconds)) return "–";
    return seconds < 100 ? `${Math.ceil(seconds)} s` : seconds < 6000 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
  }
  function made(tag, attributes = {}, text = "") {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text;
    return node;
  }

  class Stopped extends Error {}

  class Entry {
    constructor(host, file) {
      Object.assign(this, { host, file, state: "waiting", done: 0, read: 0, rate: 0, told: null, fault: "" });
      this.node = made("li");
      this.name = made("b", { title: file.name }, file.name);
      this.bar = made("progress", { max: 1, value: 0, "aria-label": file.name });
      this.said = made("span", { class: "sub" });
      this.where = made("select");
      for (const split of ["train", "validate", "test"]) this.where.append(made("option", { value: split }));
      this.stop = made("button", { type: "button", class: "button" });
      this.drop = made("button", { type: "button", class: "button" });
      this.stop.onclick = () => (this.busy ? this.cancel() : this.host.queue(this));
      this.drop.onclick = () => this.remove();
      this.where.onchange = () => (this.chosen = this.where.value);
      const text = made("div", { class: "file" });
      text.append(this.name, this.bar, this.said);
      this.node.append(text, this.where, this.stop, this.drop);
      this.draw();
    }
    get busy() { return ["waiting", "reading", "sending", "lost"].includes(this.state); }
    text(name, values = {}) { return this.host.text(name, values); }

    draw() {
      const { file, state } = this, whole = size(file.size), done = size(this.done);
      const left = time((file.size - this.done) / this.rate);
      const share = state === "reading" ? this.read / file.size : this.done / file.size;
      this.node.className = state;
      this.bar.value = state === "done" ? 1 : share;
      this.said.textContent = this.fault || this.text(state, { share: Math.floor(share * 100), size: whole, done, rate: size(this.rate), left });
      this.said.classList.toggle("fault", Boolean(this.fault));
      [...this.where.options].forEach((each) => (each.textContent = this.text(each.value)));
      this.where.setAttribute("aria-label", `${this.text("split")}: ${file.name}`);
      this.stop.hidden = state === "done";
      this.stop.textContent = this.text(this.busy ? "cancel" : "resume");
      this.drop.hidden = this.busy;
      this.drop.textContent = this.text("remove");
      this.host.changed();
    }
    set(state, fault = "") { Object.assign(this, { state, fault }); this.draw(); }
    check() { if (this.aborted) throw new Stopped(); }
    cancel() { this.aborted = true; this.asked?.abort(); this.set("stopped"); }

    async run() {
      this.aborted = false;
      try {
        this.sha ??= await this.digest();
        this.told = await this.send("POST", "", JSON.stringify({ name: this.file.name, size: this.file.size, sha256: this.sha }));
        this.host.suggest(this);
        this.begun = performance.now();
        this.from = this.done = this.told.offset;
        this.set("sending");
        while (this.told.offset < this.file.size) this.told = { ...this.told, ...(await this.part(this.told.offset)) };
        this.told = { ...this.told, ...(await this.send("POST", `/${this.told.id}/complete`)) };
        this.done = this.file.size;
        this.set("done");
      } catch (error) {
        if (!(error instanceof Stopped)) this.set("failed", error.message || this.text("failed"));
      }
    }
    async digest() {
      const sha = new Sha256();
      this.set("reading");
      for (this.read = 0; this.read < this.file.size; ) {
        this.check();
        const bytes = new Uint8Array(await this.file.slice(this.read, this.read + SLICE).arrayBuffer());
        sha.update(bytes);
        this.read += bytes.length;
        this.draw();
        await sleep(0);
      }
      return sha.hex();
    }
    async part(offset) {
      try {
        return await this.send("PUT", `/${this.told.id}?offset=${offset}`, this.file.slice(offset, offset + PART), offset, 1);
      } catch (error) {
        if (error instanceof Stopped || (error.status && error.status !== 409)) throw error;
        this.set("lost"); // a server that was started anew, or a part that came although its answer did not
        const told = await this.send("GET", `/${this.told.id}`);
        this.set("sending");
        return told;
      }
    }
    /* One request, asked again for a while where nobody answers. */
    async send(method, path, body, offset, tries = TRIES) {
      for (;;) {
        this.check();
        const answer = await this.ask(method, path, body, offset);
        this.check();
        if (answer.status) {
          let told = {};
          try { told = JSON.parse(answer.text); } catch { told.message = answer.status === 403 ? this.text("old") : ""; }
          if (answer.status < 300) return told;
          throw Object.assign(new Error(told.message), { status: answer.status });
        }
        if (--tries <= 0) throw new Error(this.text("failed"));
        if (this.state === "sending") this.set("lost");
        await sleep(AGAIN_MS);
      }
    }
    ask(method, path, body = null, offset = 0) {
      return new Promise((done) => {
        const request = (this.asked = new XMLHttpRequest());
        request.open(method, this.host.dataset.uploads + path);
        request.setRequestHeader("X-CSRF-Token", csrf());
        if (body) request.setRequestHeader("Content-Type", typeof body === "string" ? "application/json" : "application/octet-stream");
        if (method === "PUT") request.upload.onprogress = (event) => this.progress(offset + event.loaded);
        request.onloadend = () => done({ status: request.status, text: request.responseText });
        request.send(body);
      });
    }
    progress(done) {
      this.done = Math.min(done, this.file.size);
      this.rate = ((this.done - this.from) / (performance.now() - this.begun)) * 1000;
      this.draw();
    }
    async remove() {
      this.host.forget(this);
      if (this.told && !this.told.uri) await this.ask("DELETE", `/${this.told.id}`);
    }
  }

  class Upload extends HTMLElement {
    entries = [];
    connectedCallback() {
      if (this.ready) return;
      this.ready = true;
      const chosen = (event) => event.target.matches("input[type=file]") && (this.add(event.target.files), (event.target.value = ""));
      this.addEventListener("change", chosen);
      for (const kind of ["dragenter", "dragover"]) this.addEventListener(kind, (event) => this.over(event, true));
      for (const kind of ["dragleave", "drop"]) this.addEventListener(kind, (event) => this.over(event, false));
      this.addEventListener("drop", (event) => this.add(event.dataTransfer.files));
      this.addEventListener("submit", (event) => { event.preventDefault(); this.check(event.target); });
      this.addEventListener("input", (event) => { if (event.target.name === "name") event.target.dataset.typed = "yes"; });
      this.guard = (event) => { if (this.entries.some((each) => each.busy)) event.preventDefault(); };
      addEventListener("beforeunload", this.guard);
      this.redraw = () => this.entries.forEach((each) => each.draw()); // a page in another language, say
      document.addEventListener("htmx:afterSwap", this.redraw);
    }
    disconnectedCallback() {
      removeEventListener("beforeunload", this.guard);
      document.removeEventListener("htmx:afterSwap", this.redraw);
      this.entries.forEach((each) => each.busy && each.cancel());
    }

    text(name, values = {}) {
      return JSON.parse(this.dataset.texts)[name]?.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole) ?? "";
    }
    over(event, inside) { event.preventDefault(); this.querySelector(".drop").classList.toggle("over", inside); }
    add(files) {
      for (const file of files) {
        const known = this.entries.some(({ file: f }) => f.name === file.name && f.size === file.size && f.lastModified === file.lastModified);
        if (known) continue;
        const entry = new Entry(this, file);
        this.entries.push(entry);
        this.querySelector(".files").append(entry.node);
        this.queue(entry);
      }
    }
    /* One after the other: each then has the whole line, and the first is ready soonest. */
    queue(entry) {
      entry.aborted = false;
      entry.set("waiting");
      this.last = (this.last ?? Promise.resolve()).then(() => entry.state === "waiting" && entry.run());
    }
    forget(entry) {
      this.entries = this.entries.filter((each) => each !== entry);
      entry.node.remove();
      this.changed();
    }
    suggest(entry) {
      entry.where.value = entry.chosen ??= entry.told.split;
      const name = this.querySelector("[name=name]");
      if (!name.value && !name.dataset.typed && entry.chosen === "train") name.value = entry.told.suggested;
    }
    changed() {
      const button = this.querySelector("form button");
      if (button) button.disabled = !this.entries.length || this.entries.some((each) => each.state !== "done") || this.sending;
    }
    async check(form) {
      const body = new URLSearchParams(new FormData(form));
      for (const split of ["train", "validate", "test"]) body.append(split, "");
      for (const each of this.entries) body.append(each.where.value, each.told.uri);
      this.sending = true;
      this.changed();
      const headers = { "X-CSRF-Token": csrf(), Accept: "application/json" };
      let told = {};
      try {
        told = await (await fetch(this.dataset.draft, { method: "POST", body, headers })).json();
      } catch {
        told = { faults: { "": this.text("failed") } };
      }
      this.sending = false;
      this.changed();
      const { name: fault = "", ...others } = told.faults ?? {};
      form.querySelector("#upload-name-fault").textContent = fault;
      form.querySelector(".other").textContent = Object.values(others).join(" ");
      form.elements.name.toggleAttribute("aria-invalid", Boolean(fault));
      if (Object.keys(told.faults ?? {}).length) return;
      this.dispatchEvent(new CustomEvent("dtx:checked", { bubbles: true, detail: told.name }));
      location.assign(this.dataset.next.replace("NAME", encodeURIComponent(told.name)));
    }
  }
  customElements.define("dtx-upload", Upload);
})();
