/* The composer of the compare page: sends a question, and shows each column's answer as it comes. What stands
   there at the beginning and at the end is drawn by the server; in between, text is appended as text. */
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const csrf = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRF-Token"];
  let asking = null;

  function element(html) {
    const made = document.createElement("template");
    made.innerHTML = html.trim();
    return made.content.firstElementChild;
  }
  function place(round, html) {
    const made = element(html);
    if (round) round.replaceWith(made);
    else $("talk").append(made);
    htmx.process(made);
    return made;
  }
  function say(text, bad) {
    const line = $("waiting");
    line.hidden = !text;
    line.textContent = text || "";
    line.classList.toggle("bad", !!bad);
  }
  const atEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 120;
  function end() {
    window.scrollTo({ top: document.documentElement.scrollHeight });
  }
  function switched(form, busy) {
    form.querySelector("[data-stop]").hidden = !busy;
    form.querySelector("[data-send]").disabled = busy;
  }

  async function* lines(body) {
    const reader = body.getReader(), decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      rest += decoder.decode(value || new Uint8Array(), { stream: !done });
      const whole = rest.split("\n");
      rest = whole.pop();
      for (const line of whole) if (line) yield JSON.parse(line);
      if (done) return;
    }
  }

  async function ask(form) {
    if (asking) return;
    asking = new AbortController();
    const body = new URLSearchParams(new FormData(form));
    document.querySelectorAll("#talk input[name=round]").forEach((each) => body.append("round", each.value));
    switched(form, true);
    say("");
    let round = null, ended = false, fault = "";
    try {
      const headers = { "X-CSRF-Token": csrf(), "HX-Request": "true" };
      const answer = await fetch(form.dataset.ask, { method: "POST", body, headers, signal: asking.signal });
      if (!(answer.headers.get("content-type") || "").includes("ndjson"))
        fault = element(`<div>${await answer.text()}</div>`).textContent.trim();
      else for await (const event of lines(answer.body)) {
        if (event.begin) {
          round = place(null, event.begin);
          round.classList.add("asking");
          form.question.value = "";
          end();
        } else if (event.waiting) say(event.waiting);
        else if (event.fault) fault = event.fault;
        else if (event.end) {
          round = place(round, event.end);
          ended = true;
        } else {
          const stay = atEnd();
          round.querySelectorAll("[data-text]")[event.column].append(event.delta);
          say("");
          if (stay) end();
        }
      }
      if (!ended && !fault) fault = form.dataset.lost;
    } catch (error) {
      fault = error.name === "AbortError" ? form.dataset.stopped : form.dataset.lost;
    }
    asking = null;
    round?.classList.remove("asking");
    if (fault && round) round.classList.add("broken");
    say(fault, !!fault);
    switched(form, false);
    form.question.focus();
  }

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-ask]")) return;
    event.preventDefault();
    ask(event.target);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target.id !== "question") return;
    event.preventDefault();
    event.target.form.requestSubmit();
  });
  document.addEventListener("click", (event) => {
    const fill = event.target.closest("[data-fill]");
    if (fill) {
      $("question").value = fill.dataset.fill;
      $("question").focus();
    }
    if (event.target.closest("[data-stop]")) asking?.abort();
    document.querySelectorAll("details.add[open], details.settings[open]").forEach((each) => {
      if (!each.contains(event.target)) each.open = false;
    });
  });
  document.addEventListener("change", (event) => {
    const other = event.target.dataset?.not;  // a blind question stands alone
    if (other && event.target.checked) event.target.form.elements[other].checked = false;
  });
})();
