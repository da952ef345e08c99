/* <dtx-charts src="/console/ns/NS/charts" query="job=A&job=B"> draws a figure[data-name] each: loss, evalLoss,
   perplexity, learningRate or anything else that was measured. Draw it with the macro `charts` of live.html.
   A row with data-job=NAME anywhere on the page makes that curve stand out. What is seen is in the URL: x,
   smooth, log, from, to, off. All numbers come from the server; here they are only drawn, and what comes in
   live is put behind them until the next look. */
"use strict";
(() => {
  const AGAIN_MS = 8000, SOON_MS = 1000, FRAME_MS = 100, TIP = 8;
  const CROWD = 32; // more lines than there are colours and dashes: dashed ones take ten times as long to draw
  const number = (v) => v == null ? "–" : Math.abs(v) >= 1000 || Number.isInteger(v) ? Math.round(v).toLocaleString("en") : String(Number(v.toPrecision(4)));
  const clock = (s) => { const m = Math.floor(s / 60); return s < 60 ? `${Math.round(s)} s` : m < 60 ? `${m} min` : `${Math.floor(m / 60)} h ${m % 60} min`; };
  const short = (v) => Math.abs(v) >= 1e6 ? `${+(v / 1e6).toPrecision(3)} M` : Math.abs(v) >= 1e4 ? `${+(v / 1e3).toPrecision(3)} k` : Math.abs(v) < 1e-4 && v ? v.toExponential(1) : String(+v.toPrecision(6));
  /* What several runs told of one job, one after the other. Empty cells are left out: they would turn back. */
  const joined = (parts, grid) => {
    if (parts.length === 1) return parts[0];
    const points = parts.flatMap((part) => part.y.map((y, n) => [(part.x.length ? part.x : grid)[n], y, part.smooth[n]]))
      .filter((point) => point[1] != null).sort((a, b) => a[0] - b[0]);
    const [x, y, smooth] = [0, 1, 2].map((n) => points.map((point) => point[n]));
    return { ...parts.at(-1), x, y, smooth: parts.at(-1).smooth.length ? smooth : [], gaps: parts.flatMap((part) => part.gaps) };
  };
  /* Points with a gap on either side, which no line shows; in a cut curve a point is two cells alike. */
  const alone = (x, column, gaps) => {
    const groups = [...gaps, null].map(() => []);
    let n = 0;
    column.forEach((y, at) => {
      if (y == null) return;
      while (n < gaps.length && x[at] > (gaps[n][0] + gaps[n][1]) / 2) n++;
      groups[n].push(at);
    });
    return groups.filter((each) => each.length === 1 || each.length === 2 && column[each[0]] === column[each[1]]).map((each) => each[0]);
  };
  const made = (tag, name, text) => { const node = document.createElement(tag); if (name) node.className = name; if (text != null) node.append(text); return node; };

  class Charts extends HTMLElement {
    static observedAttributes = ["query"];
    connectedCallback() {
      this.form = this.querySelector("form");
      this.figures = [...this.querySelectorAll("figure[data-name]")].map((node) => new Figure(this, node));
      this.legend = this.querySelector("[data-legend]");
      this.tip = this.querySelector("[data-tip]");
      this.zoom = ["from", "to"].map((name) => new URL(location.href).searchParams.get(name) || "");
      this.off = new Set(new URL(location.href).searchParams.getAll("off"));
      this.stops = new Map();
      let typed = 0;
      this.form.addEventListener("input", (event) => {
        if (event.target.name === "x") this.zoom = ["", ""];
        clearTimeout(typed);
        typed = setTimeout(() => { this.keepUrl(); this.load(); }, event.target.type === "range" ? 150 : 0);
      });
      this.form.addEventListener("submit", (event) => event.preventDefault());
      this.form.querySelector("[data-unzoom]").addEventListener("click", () => this.zoomTo("", ""));
      this.repaint = () => this.figures.forEach((each) => each.build());
      this.stand = (event) => this.focus(event.target.closest?.("[data-job]")?.dataset.job);
      document.addEventListener("dtx:theme", this.repaint);
      document.addEventListener("mouseover", this.stand);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.repaint);
      let width = 0;
      this.size = new ResizeObserver(() => {
        if (Math.abs(this.clientWidth - width) < 2) return;
        width = this.clientWidth;
        this.figures.forEach((each) => each.resize());
      });
      this.size.observe(this);
      this.ticking = setInterval(() => this.tick(), FRAME_MS);
      this.load();
    }
    disconnectedCallback() {
      clearInterval(this.ticking);
      this.size?.disconnect();
      document.removeEventListener("dtx:theme", this.repaint);
      document.removeEventListener("mouseover", this.stand);
      this.stops?.forEach((stop) => stop());
      this.stops?.clear();
      this.figures?.forEach((each) => each.plot?.destroy());
    }
    attributeChangedCallback(name, old, now) { if (this.figures && old !== now) this.load(); }
    get settings() {
      const data = new FormData(this.form);
      return { x: data.get("x"), smooth: Number(data.get("smooth")), log: data.has("log") };
    }
    keepUrl() {
      const url = new URL(location.href), set = this.settings;
      const put = (name, value, plain) => value && value !== plain ? url.searchParams.set(name, value) : url.searchParams.delete(name);
      put("x", set.x, "step");
      put("smooth", String(set.smooth), "0");
      put("log", set.log ? "1" : "");
      put("from", this.zoom[0]);
      put("to", this.zoom[1]);
      url.searchParams.delete("off");
      this.off.forEach((job) => url.searchParams.append("off", job));
      history.replaceState(history.state, "", url);
    }
    zoomTo(from, to) {
      this.zoom = [from, to];
      this.keepUrl();
      this.load();
    }
    async load() {
      this.due = 0;
      const turn = (this.turn = {}), began = Date.now();
      this.form.querySelector("[data-unzoom]").hidden = !this.zoom[0] && !this.zoom[1];
      this.form.querySelector("[data-smooth]").textContent = this.settings.smooth ? this.settings.smooth.toFixed(2) : "";
      const found = await this.ask();
      if (turn !== this.turn) return;
      if (!found) return this.soon(AGAIN_MS);
      this.figures.forEach((each, n) => each.show(found[n]));
      this.began = found[0].began;
      this.drawLegend(found[0].lines);
      this.followRuns(found);
      if (found.some((each) => each.behind)) this.soon(Math.max(500, 2 * (Date.now() - began))); // a long history is still being read
      this.figures.forEach((each) => each.build());
    }
    /* The data of all figures at once: the server looks up the jobs and their runs once. */
    async ask() {
      const { x, smooth } = this.settings, width = Math.max(...this.figures.map((each) => each.width));
      const asked = new URLSearchParams({ x, smooth: String(smooth), bins: String(width), from: this.zoom[0], to: this.zoom[1] });
      for (const { name } of this.figures) asked.append("name", name);
      try {
        const answer = await fetch(`${this.getAttribute("src")}?${this.getAttribute("query")}&${asked}`, { headers: { "HX-Request": "true" } });
        if (answer.ok) return await answer.json();
      } catch { /* as when it is refused: what is shown stays, and it is asked for again */ }
      return null;
    }
    followRuns(found) {
      const runs = new Map();
      for (const each of found)
        for (const [run, offset] of Object.entries(each.live)) runs.set(run, Math.min(runs.get(run) ?? Infinity, offset));
      for (const [run, stop] of this.stops) if (run && !runs.has(run)) { stop(); this.stops.delete(run); }
      if (!found.some((each) => each.open)) return;
      for (const [run, offset] of runs)
        if (!this.stops.has(run)) this.stops.set(run, dtxLive.follow(`points:${run}`, offset, (message) => this.take(message)));
      if (!this.stops.has("")) // another run may take over, or the last one end
        this.stops.set("", dtxLive.follow("status:Run", 0, () => this.soon(AGAIN_MS)));
    }
    soon(ms) { this.due = Math.min(this.due || Infinity, Date.now() + ms); }
    take(message) {
      if (message.gap) return this.soon(0);
      if (!message.jobs) return;
      const direct = /^(step|time)$/.test(this.settings.x);
      if (direct) this.figures.forEach((each) => each.take(message.jobs));
      this.soon(direct ? AGAIN_MS : SOON_MS);
    }
    tick() {
      if (document.hidden) return;
      this.figures.forEach((each) => each.dirty && each.redraw());
      if (this.due && Date.now() >= this.due) this.load();
    }
    drawLegend(lines) {
      if (lines.length < 2) return this.legend.replaceChildren();
      this.legend.replaceChildren(...lines.map((line) => {
        const button = made("button", "chip");
        button.type = "button";
        button.dataset.job = line.job;
        button.title = line.job;
        button.setAttribute("aria-pressed", String(!this.off.has(line.job)));
        button.append(made("span", `dot s${line.hue} d${line.dash}`), line.label);
        button.addEventListener("click", () => {
          this.off.has(line.job) ? this.off.delete(line.job) : this.off.add(line.job);
          button.setAttribute("aria-pressed", String(!this.off.has(line.job)));
          this.keepUrl();
          this.figures.forEach((each) => each.build());
        });
        return button;
      }));
    }
    focus(job) {
      if (job === this.focused) return;
      this.focused = job;
      this.figures.forEach((each) => each.plot?.redraw(false));
    }
  }

  class Figure {
    constructor(home, node) {
      this.home = home;
      this.node = node;
      this.name = node.dataset.name;
      this.box = node.querySelector("[data-plot]");
      this.said = node.querySelector("[data-said]");
      node.querySelector("[data-png]").addEventListener("click", () => this.picture());
      node.querySelector("[data-csv]").addEventListener("click", () => {
        location.href = `${home.getAttribute("src")}.csv?${home.getAttribute("query")}&name=${encodeURIComponent(this.name)}&x=${home.settings.x}`;
      });
    }
    get width() { return Math.max(200, this.box.clientWidth); }
    get height() { return Math.round(Math.min(300, Math.max(200, this.width * 0.52))); }
    show(data) {
      this.data = data;
      this.smooth = data.smooth;
      this.axis = this.home.settings.x;
      const jobs = [...new Set(data.curves.map((curve) => curve.job))];
      this.curves = jobs.map((job) => joined(data.curves.filter((curve) => curve.job === job), data.grid));
      this.tails = this.curves.map((curve) => ({ x: [], y: [], smooth: [], gaps: [], step: curve.last }));
      if ("optional" in this.node.dataset) this.node.hidden = !data.curves.length;
      this.said.textContent = [data.said, this.unread()].filter(Boolean).join(" ") || this.home.dataset.none;
    }
    /* What is drawn is what was read by now; how much that is. */
    unread() {
      const { behind, runs: [read, all] } = this.data;
      return behind ? this.home.dataset.reading.replace("{n}", read).replace("{all}", all).replace("{mb}", number(Math.ceil(behind / 1e6))) : "";
    }
    take(jobs) {
      if (!this.data || this.home.zoom[0] || this.home.zoom[1]) return false;
      let taken = false;
      this.curves.forEach((curve, n) => {
        const fresh = jobs[curve.finetune]?.[this.name];
        if (!fresh) return;
        const tail = this.tails[n], xs = this.axis === "step" ? fresh[0] : fresh[1].map((t) => t - this.data.began[curve.finetune]);
        const last = () => tail.x.at(-1) ?? curve.x.at(-1) ?? (this.data.grid ? this.data.grid.at(-1) : -Infinity);
        xs.forEach((x, i) => {
          if (x <= last()) return;
          if (curve.reach && fresh[0][i] - tail.step > curve.reach) tail.gaps.push([last(), x]);
          tail.step = fresh[0][i];
          const before = tail.smooth.at(-1) ?? curve.smooth.findLast((v) => v != null) ?? fresh[2][i];
          tail.x.push(x);
          tail.y.push(fresh[2][i]);
          tail.smooth.push(this.smooth * before + (1 - this.smooth) * fresh[2][i]);
          taken = this.dirty = true;
        });
      });
      return taken;
    }
    /* One table of all curves: their x together, nothing where a curve has no point there. That breaks no line:
       jobs report at steps of their own. Lines are broken at their gaps, as the server found them. */
    table() {
      const shown = this.curves.map((curve, n) => [curve, this.tails[n]]).filter(([curve]) => !this.home.off.has(curve.job));
      const parts = [], series = [];
      for (const [curve, tail] of shown) {
        const x = (curve.x.length ? curve.x : this.data.grid).concat(tail.x);
        const y = curve.y.concat(tail.y), mean = curve.smooth.length ? curve.smooth.concat(tail.smooth) : null;
        parts.push(mean ? [x, y, mean] : [x, y]);
        const gaps = curve.gaps.concat(tail.gaps);
        series.push([curve, false, gaps]);
        if (mean) series.push([curve, true, gaps]);
      }
      if (!parts.length) return [[[]], []];
      const data = parts.length > 1 || parts[0][0] === this.data.grid ? uPlot.join(parts) : parts[0];
      if (this.home.settings.log) for (let n = 1; n < data.length; n++) data[n] = data[n].map((v) => v > 0 ? v : null);
      return [data, series];
    }
    build() {
      if (!this.data) return;
      this.plot?.destroy();
      this.plot = null;
      this.box.replaceChildren();
      this.palette = {};
      const [data, series] = this.table();
      this.dirty = false;
      this.node.classList.toggle("bare", !series.length);
      if (!series.length) return;
      const lines = new Map(this.data.lines.map((line) => [line.job, line]));
      const ink = this.colour("--soft"), grid = { stroke: this.colour("--line"), width: 1 }, ticks = { show: false };
      const font = "11px system-ui, sans-serif", home = this.home;
      this.series = series;
      const few = data[0].length < 60, crowd = lines.size > CROWD;
      this.plot = new uPlot({
        width: this.width, height: this.height, padding: [10, 12, 0, 0],
        legend: { show: false },
        cursor: {
          sync: { key: "dtx-charts", setSeries: false }, drag: { x: true, y: false, setScale: false }, points: { show: series.length <= 16, size: 7 },
        },
        select: { show: true },
        scales: { x: { time: false, range: (u, low, high) => this.range(low, high) }, y: { distr: home.settings.log ? 3 : 1 } },
        axes: [
          { stroke: ink, grid, ticks, font, size: 30, values: (u, values) => values.map((v) => v == null ? "" : this.axis === "time" ? clock(v) : short(v)), space: 60, ...(this.axis === "time" ? { incrs: [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400] } : {}) },
          { stroke: ink, grid, ticks, font, size: 54, values: (u, values) => values.map((v) => v == null ? "" : short(v)) },
        ],
        series: [{}, ...series.map(([curve, mean]) => {
          const line = lines.get(curve.job), faint = this.smooth > 0 && !mean, colour = this.colour(`--series-${line.hue}`);
          return {
            gaps: (u, at) => this.series[at - 1][2].map((gap) => gap.map((x) => u.valToPos(x, "x", true))), width: faint || crowd ? 1 : 1.8, dash: crowd ? [] : [[], [6, 4], [2, 3], [9, 3, 2, 3]][line.dash],
            stroke: () => this.shade(colour, faint ? 0.28 : 1, curve.job), points: {
              show: few && !faint && series.length < 9, size: 4, fill: colour,
              filter: (u, at, show) => show || faint || !this.series[at - 1][2].length ? null : alone(u.data[0], u.data[at], this.series[at - 1][2]),
            },
          };
        })],
        hooks: {
          setSelect: [(u) => {
            if (u.select.width < 6) return;
            const [from, to] = [u.select.left, u.select.left + u.select.width].map((at) => u.posToVal(at, "x"));
            u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            home.zoomTo(String(+from.toPrecision(8)), String(+to.toPrecision(8)));
          }],
          draw: [(u) => this.marks(u, lines)],
          setCursor: [(u) => this.point(u, lines)],
        },
      }, data, this.box);
      this.plot.over.addEventListener("dblclick", () => home.zoomTo("", ""));
      this.plot.over.addEventListener("mouseleave", () => (home.tip.hidden = true));
    }
    redraw() {
      this.dirty = false;
      if (!this.plot) return this.build();
      const [data, series] = this.table();
      if (series.length !== this.series.length) return this.build();
      this.series = series;
      this.plot.setData(data);
    }
    resize() { if (this.plot) this.plot.setSize({ width: this.width, height: this.height }); }
    range(low, high) {
      const [from, to] = this.home.zoom.map((text) => (text ? Number(text) : null));
      // All charts span the same, so that what happened at once stands below each other.
      for (const { data: each } of this.home.figures)
        for (const curve of each?.curves ?? []) {
          const xs = curve.x.length ? curve.x : each.grid;
          low = Math.min(low, xs[0]);
          high = Math.max(high, xs.at(-1));
        }
      if (low === high) { low -= 0.5; high += 0.5; }
      return [from ?? low, to ?? high];
    }
    /* A colour as the style sheet gives it in this theme. */
    colour(name) {
      if (!(name in this.palette)) {
        const probe = this.box.appendChild(made("i"));
        probe.style.color = `var(${name})`;
        this.palette[name] = getComputedStyle(probe).color;
        probe.remove();
      }
      return this.palette[name];
    }
    shade(colour, alpha, job) {
      const dim = this.home.focused && this.home.focused !== job && !this.home.off.has(this.home.focused) && this.data.lines.some((line) => line.job === this.home.focused);
      const all = alpha * (dim ? 0.15 : 1);
      return all === 1 ? colour : colour.replace(/^rgba?\(([^)]+)\)$/, (_, parts) => `rgba(${parts.split(",").slice(0, 3).join(",")}, ${all})`);
    }
    /* Checkpoints as ticks at the foot, a run that took over as a dotted line, the best point as a ring. */
    marks(u, lines) {
      const c = u.ctx, { left, top, width, height } = u.bbox, unit = devicePixelRatio;
      c.save();
      for (const mark of this.data.lines.length <= 8 ? this.data.marks : []) {
        if (this.home.off.has(mark.job)) continue;
        const at = Math.round(u.valToPos(mark.x, "x", true));
        if (at < left || at > left + width) continue;
        c.strokeStyle = c.fillStyle = this.colour(`--series-${lines.get(mark.job).hue}`);
        c.lineWidth = unit;
        c.setLineDash(mark.step == null ? [2 * unit, 3 * unit] : []);
        c.beginPath();
        if (mark.step == null) { c.moveTo(at, top); c.lineTo(at, top + height); c.stroke(); }
        else { c.moveTo(at - 4 * unit, top + height); c.lineTo(at + 4 * unit, top + height); c.lineTo(at, top + height - 7 * unit); c.fill(); }
      }
      const best = this.data.best;
      if (best && best.x >= u.scales.x.min && best.x <= u.scales.x.max && !this.home.off.has(best.job) && best.y > (this.home.settings.log ? 0 : -Infinity)) {
        c.setLineDash([]);
        c.lineWidth = 2 * unit;
        c.strokeStyle = this.colour("--ink");
        c.beginPath();
        c.arc(u.valToPos(best.x, "x", true), u.valToPos(best.y, "y", true), 6 * unit, 0, 7);
        c.stroke();
      }
      c.restore();
    }
    /* What the crosshair stands at. */
    point(u, lines) {
      const tip = this.home.tip, { left, top, idx } = u.cursor;
      if (left == null || left < 0 || idx == null || !u.over.matches(":hover")) { if (u.over.matches(":hover")) tip.hidden = true; return; }
      const x = u.posToVal(left, "x"), found = [];
      this.series.forEach(([curve, mean], n) => {
        if (this.smooth > 0 && !mean) return;
        let at = idx;
        const column = u.data[n + 1];
        for (let by = 0; column[at] == null && by < 200; by++) at = column[idx - by] != null ? idx - by : column[idx + by] != null ? idx + by : at;
        if (column[at] != null) found.push([curve.job, column[at], u.data[0][at]]);
      });
      if (!found.length) return (tip.hidden = true);
      const value = u.posToVal(top, "y");
      const near = found.sort((a, b) => Math.abs(a[1] - value) - Math.abs(b[1] - value)).slice(0, TIP).sort((a, b) => b[1] - a[1]);
      const title = this.axis === "time" ? clock(x) : `${this.home.form.elements.x.selectedOptions[0].text} ${number(this.axis === "epoch" ? x : near[0][2])}`;
      tip.replaceChildren(made("b", "", title), ...near.map(([job, y]) => {
        const line = lines.get(job), row = made("span");
        row.append(made("i", `dot s${line.hue} d${line.dash}`), made("em", "", lines.size > 1 ? line.label : ""), made("strong", "num", number(y)));
        return row;
      }));
      if (found.length > TIP) tip.append(made("small", "", `+ ${found.length - TIP}`));
      tip.hidden = false;
      const frame = u.over.getBoundingClientRect(), host = this.home.getBoundingClientRect();
      const right = left > u.over.clientWidth / 2;
      tip.style.left = `${frame.left - host.left + left + (right ? -14 - tip.offsetWidth : 14)}px`;
      tip.style.top = `${frame.top - host.top + Math.max(0, Math.min(top - 20, u.over.clientHeight - tip.offsetHeight))}px`;
    }
    picture() {
      if (!this.plot) return;
      const from = this.plot.ctx.canvas, unit = devicePixelRatio, title = 34 * unit;
      const lines = this.data.lines.filter((line) => !this.home.off.has(line.job)).slice(0, 40), rows = lines.length > 1 ? lines.length : 0;
      const to = made("canvas"), c = to.getContext("2d");
      to.width = from.width;
      to.height = from.height + title + (rows * 18 + 10) * unit;
      c.fillStyle = this.colour("--face");
      c.fillRect(0, 0, to.width, to.height);
      c.fillStyle = this.colour("--ink");
      c.font = `600 ${15 * unit}px system-ui, sans-serif`;
      c.fillText(`${this.node.querySelector("h2").textContent} · ${this.data.lines.length === 1 ? this.data.lines[0].job : document.title}`, 12 * unit, 23 * unit);
      c.drawImage(from, 0, title);
      c.font = `${12 * unit}px system-ui, sans-serif`;
      (rows ? lines : []).forEach((line, n) => {
        const y = title + from.height + (n * 18 + 14) * unit;
        c.fillStyle = this.colour(`--series-${line.hue}`);
        c.fillRect(14 * unit, y - 8 * unit, 12 * unit, 8 * unit);
        c.fillStyle = this.colour("--ink");
        c.fillText(line.job, 34 * unit, y);
      });
      to.toBlob((blob) => {
        const link = made("a");
        link.href = URL.createObjectURL(blob);
        link.download = `${this.name}.png`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      });
    }
  }
  customElements.define("dtx-charts", Charts);
})();
