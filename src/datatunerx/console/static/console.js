/* What a page does by itself: refresh by morphing, dialogs, the palette, shortcuts. It only moves what the
   server has drawn; it computes nothing and holds no state but the scroll of the reader. */
"use strict";
(() => {
  const REFRESH_MS = 3000;
  const $ = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];

  // Refresh. What the reader opened, ticked or typed stays; an island ([data-island]) draws itself.
  const calls = Idiomorph.defaults.callbacks;
  calls.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && /^(DETAILS|DIALOG)$/.test(node.tagName)) &&
    !(name === "checked" || (name === "value" && /^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName)));
  calls.beforeNodeMorphed = (old) => !(old.nodeType === 1 && old.hasAttribute("data-island"));
  let fresh = Date.now();
  const busy = () => document.hidden || all("dialog[open]").length || getSelection().toString();
  function refresh() {
    const page = $("page");
    if (!page || !page.hasAttribute("data-live") || busy()) return;
    htmx.ajax("GET", location.pathname + location.search, { target: "#page", swap: "morph:innerHTML" });
  }
  // A socket tells of changes; then only ages and what a clock moves need a refresh of their own.
  let looks = 0;
  setInterval(() => (!window.dtxLive?.connected || ++looks % 2 === 0) && refresh(), REFRESH_MS);
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
    count();
  });

  // What is ticked in a list, and the actions for it.
  function count() {
    const bar = document.querySelector(".selection");
    if (!bar) return;
    const ticked = all("input[name=target]:checked").length;
    bar.hidden = !ticked;
    bar.querySelector("[data-count]").textContent = ticked;
  }
  // The selection is in the URL, so that it survives a reload and can be sent.
  const ticks = () => all("input[name=target]");
  function rememberTicks() {
    const url = new URL(location), ticked = ticks().filter((box) => box.checked).map((box) => box.value);
    if (ticked.length) url.searchParams.set("selected", ticked.join(","));
    else url.searchParams.delete("selected");
    history.replaceState(history.state, "", url);
  }
  const selected = (new URLSearchParams(location.search).get("selected") || "").split(",");
  ticks().forEach((box) => (box.checked ||= selected.includes(box.value)));
  document.addEventListener("change", (event) => {
    const from = event.target;
    if (from.matches("[data-all]")) ticks().forEach((box) => (box.checked = from.checked));
    if (from.matches("[data-all], input[name=target]")) rememberTicks();
    if (from.matches("[data-namespace]"))
      location.href = location.pathname.replace(/\/ns\/[^/]+(\/[^/]+)?.*/, `/ns/${from.value}$1`);
    count();
  });

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
    } else if (at("[data-palette]")) palette();
    else if ((found = at("[data-menu]"))) found.setAttribute("aria-expanded", $("side").classList.toggle("open"));
    else if (at("[data-close]")) at("dialog").close();
    else if (event.target.matches("dialog")) event.target.close(); // the backdrop
    else if (!at(".side")) $("side")?.classList.remove("open");
    if (!at(".user")) all(".user[open]").forEach((each) => (each.open = false));
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
  count();
})();
