/* What a page does by itself: refresh by morphing, dialogs, the palette, shortcuts. It only moves what the
   server has drawn; it computes nothing and holds no state but what the reader ticked. */
"use strict";
(() => {
  const REFRESH_MS = 3000, SOON_MS = 800;
  const $ = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];

  // Refresh. What the reader opened, ticked or typed stays; an island ([data-island]) draws itself.
  const calls = Idiomorph.defaults.callbacks;
  calls.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && /^(DETAILS|DIALOG)$/.test(node.tagName)) &&
    !(name === "checked" || (name === "value" && /^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName) && node.type !== "checkbox"));
  calls.beforeNodeMorphed = (old) => !(old.nodeType === 1 && old.hasAttribute("data-island"));
  let fresh = Date.now();
  const busy = () => document.hidden || all("dialog[open]").length || getSelection().toString();
  const load = () => htmx.ajax("GET", location.pathname + location.search, { target: "#page", swap: "morph:innerHTML" });
  function refresh() {
    if ($("page")?.hasAttribute("data-live") && !busy()) load();
  }
  // A socket tells of changes; then only ages and what a clock moves need a refresh of their own.
  let looks = 0;
  setInterval(() => (!window.dtxLive?.connected || ++looks % 2 === 0) && refresh(), REFRESH_MS);
  if (document.querySelector("main[data-soon]")) setTimeout(refresh, SOON_MS);
  document.addEventListener("dtx:changed", refresh);
  document.addEventListener("visibilitychange", refresh);

  // Offline: a thin bar that says how old the data is.
  let lost = false;
  function connection(ok) {
    if (ok) fresh = Date.now();
    lost = !ok;
    showLost();
  }
  function showLost() {
    if (!$("offline")) return;  // the page is just being replaced
    $("offline").hidden = !lost;
    const text = document.body.dataset.offline.replace("{s}", Math.round((Date.now() - fresh) / 1000));
    if (lost) $("offline").textContent = text;
  }
  setInterval(() => lost && showLost(), 1000);
  document.addEventListener("dtx:connection", (event) => connection(event.detail.ok));
  document.addEventListener("htmx:sendError", () => connection(false));
  document.addEventListener("htmx:timeout", () => connection(false));
  document.addEventListener("htmx:afterRequest", (event) => event.detail.xhr.status && connection(true));

  // An answer that is an error is shown where it was asked for a dialog, else as a toast.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, target } = event.detail;
    // What is being typed stays; a button that has the focus is called anew like any other.
    Idiomorph.defaults.ignoreActiveValue = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName);
    if (xhr.status < 400) return;
    if (target.id === "page" && xhr.status >= 500) return;
    event.detail.shouldSwap = true;
    event.detail.isError = false;
    if (xhr.responseText.includes('class="toast')) event.detail.target = $("toasts");
  });
  function toast(text, tone = "") {
    const made = document.createElement("div");
    made.className = `toast ${tone}`;
    made.textContent = text;
    $("toasts").append(made);
    setTimeout(() => made.remove(), 6000);
  }
  document.addEventListener("dtx:toast", (event) => toast(event.detail.value));
  document.addEventListener("dtx:done", () => { $("dialog").close(); refresh(); });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog" && !$("dialog").open) $("dialog").showModal();
    if (event.detail.target.id === "palette-found") choose(0);
    mark();
  });
  document.addEventListener("htmx:historyRestore", () => mark());

  // What is ticked in a list, on this page of it or another. It is in the URL, so that it survives a reload and
  // can be sent; and kept by the tab for who comes back to an entry of the history from before.
  const MOST = 60000;  // bytes of an address; the server reads 64 kB
  const KEPT = `dtx-selected:${location.pathname}`;
  const ticks = () => all("#page .pick input[name=target]");
  let selected = new Set((new URLSearchParams(location.search).get("selected") || "").split(",").filter(Boolean));
  function comeBack() {
    const kept = sessionStorage.getItem(KEPT);
    if (kept !== null) selected = new Set(JSON.parse(kept));
  }
  if (performance.getEntriesByType("navigation")[0]?.type === "back_forward") comeBack();
  addEventListener("pageshow", (event) => { if (event.persisted) { comeBack(); mark(); } });
  function withChosen(address) {
    const url = new URL(address);
    if (selected.size) url.searchParams.set("selected", [...selected].join(","));
    else url.searchParams.delete("selected");
    return url;
  }
  function mark() {
    const bar = document.querySelector(".selection");
    if (!bar) return;
    bar.dataset.gone.split(",").forEach((each) => selected.delete(each));
    const here = ticks(), every = document.querySelector("[data-all]");
    here.forEach((box) => (box.checked = selected.has(box.value)));
    const ticked = here.filter((box) => box.checked).length, elsewhere = bar.querySelector("[data-elsewhere]");
    if (every) [every.checked, every.indeterminate] = [ticked > 0 && ticked === here.length, ticked > 0 && ticked < here.length];
    bar.hidden = !selected.size;
    bar.querySelector("[data-count]").textContent = selected.size;
    elsewhere.hidden = ticked === selected.size;
    elsewhere.textContent = elsewhere.dataset.elsewhere.replace("{n}", selected.size - ticked);
    history.replaceState(history.state, "", withChosen(location));
  }
  const weight = (target) => encodeURIComponent(target).length + 8;  // as one of those that an action names
  function tick(boxes, on) {
    let room = MOST - [...selected].reduce((sum, each) => sum + weight(each), 0);
    for (const { value } of boxes) {
      if (!on) selected.delete(value);
      else if (!selected.has(value) && (room -= weight(value)) < 0) {
        toast(document.querySelector(".selection").dataset.full, "bad");
        break;
      } else selected.add(value);
    }
    sessionStorage.setItem(KEPT, JSON.stringify([...selected]));
    mark();
  }
  // Where a link leads to another page or order of the same list, it goes along; and to what is done with it.
  for (const way of ["click", "auxclick"])
    document.addEventListener(way, (event) => {
      const link = event.target.closest("#page a[href]");
      if (link?.origin !== location.origin || link.pathname !== location.pathname) return;
      if (selected.size || link.search.includes("selected=")) link.href = withChosen(link.href);
    }, true);
  document.addEventListener("htmx:configRequest", (event) => {
    const { elt, parameters } = event.detail;
    if (elt.closest(".selection")) parameters.target = [...selected];
    if (elt.matches("form.filters") && selected.size) parameters.selected = [...selected].join(",");
  });

  // Which columns a table shows: in the URL, and remembered.
  let saved = Promise.resolve();
  function pickColumns(menu) {
    const boxes = [...menu.querySelectorAll("input")], names = (on) => boxes.filter((box) => box.checked === on).map((box) => box.value);
    const url = new URL(location);
    url.searchParams.set("columns", [menu.dataset.first, ...names(true)].join(","));
    history.replaceState(history.state, "", url);
    const hidden = `${menu.dataset.columns}:${names(false).join(".")}`;
    saved = saved.then(() => remember("columns", hidden), () => {});  // one after the other: the last one holds
    load();
  }
  document.addEventListener("change", (event) => {
    const from = event.target, menu = from.closest("[data-columns]");
    if (from.matches("[data-all]")) tick(ticks(), from.checked);
    if (from.matches("#page .pick input[name=target]")) tick([from], from.checked);
    if (menu) pickColumns(menu);
    if (from.matches("[data-namespace]"))
      location.href = location.pathname.replace(/\/ns\/[^/]+(\/[^/]+)?.*/, `/ns/${from.value}$1`);
  });

  const MENUS = ".user[open], .columns[open]";

  // Language and theme change where the reader stands.
  async function remember(name, value) {
    const body = new URLSearchParams({ [name]: value });
    await fetch("/console/remember", { method: "POST", body, headers: { "X-CSRF-Token": csrf() } });
  }
  function press(group, button) {
    all(group).forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
  }
  document.addEventListener("click", async (event) => {
    const at = (selector) => event.target.closest(selector);
    let found;
    if ((found = at("[data-theme-set]"))) {
      document.documentElement.dataset.theme = found.dataset.themeSet;
      press("[data-theme-set]", found);
      document.dispatchEvent(new Event("dtx:theme"));
      remember("theme", found.dataset.themeSet);
    } else if ((found = at("[data-language]"))) {
      await remember("language", found.dataset.language);
      document.documentElement.lang = found.lang;
      const whole = { "HX-Target": "body" };  // which has no id that htmx would say
      await htmx.ajax("GET", location.pathname + location.search, { target: "body", swap: "morph:innerHTML", headers: whole });
    } else if ((found = at("[data-copy]"))) {
      await navigator.clipboard.writeText(found.dataset.copy);
      toast(document.body.dataset.copied);
    } else if (at("[data-clear]")) {
      selected.clear();
      tick([], false);
      $("page").focus();  // the button is gone
    } else if (at("[data-palette]")) palette();
    else if ((found = at("[data-menu]"))) found.setAttribute("aria-expanded", $("side").classList.toggle("open"));
    else if (at("[data-close]")) at("dialog").close();
    else if (event.target.matches("dialog")) event.target.close(); // the backdrop
    else if (!at(".side")) $("side")?.classList.remove("open");
    all(MENUS).forEach((each) => each.contains(event.target) || (each.open = false));
  });

  // Palette and shortcuts
  let chosen = 0;
  function palette() {
    $("palette").showModal();
    $("palette-input").value = "";
    htmx.trigger("#palette-input", "dtx:open");
  }
  function choose(index) {
    const found = all("#palette-found a");
    chosen = Math.max(0, Math.min(index, found.length - 1));
    found.forEach((each, i) => each.classList.toggle("at", i === chosen));
    found[chosen]?.scrollIntoView({ block: "nearest" });
  }
  let row = -1, going = 0;
  function move(by) {
    const links = all("#page tbody td.name a:first-of-type");
    row = Math.max(0, Math.min(row + by, links.length - 1));
    links[row]?.focus();
  }
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      return $("palette").open ? $("palette").close() : palette();
    }
    if ($("palette").open) {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        choose(chosen + (event.key === "ArrowDown" ? 1 : -1));
      } else if (event.key === "Enter") all("#palette-found a")[chosen]?.click();
      return;
    }
    if (event.key === "Escape")
      all(MENUS).forEach((each) => {
        if (each.contains(event.target)) each.querySelector("summary").focus();
        each.open = false;
      });
    if (event.ctrlKey || event.metaKey || event.altKey || busyTyping(event.target)) return;
    if (Date.now() - going < 1200) {
      going = 0;
      const link = document.querySelector(`.side [data-key="${CSS.escape(event.key)}"]`);
      if (link) link.click();
      return;
    }
    const does = { "/": () => $("filter")?.focus(), j: () => move(1), k: () => move(-1), g: () => (going = Date.now()), "?": () => $("help").showModal() }[event.key];
    if (does) { event.preventDefault(); does(); }
  });
  const busyTyping = (node) => /^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName) && node.type !== "checkbox" || node.isContentEditable || all("dialog[open]").length;
  mark();
})();
