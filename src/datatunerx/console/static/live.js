/* The one connection of a page. window.dtxLive.follow(topic, offset, take) calls take(message) for what comes
   after the offset, through lost connections and restarts of the server; it returns a function that ends it.
   Topics: log:RUN, points:RUN (offsets are bytes of the file), status:KIND. A message has topic, from and to,
   and one of lines, open, jobs, names, gap (bytes skipped, for a reader too far behind) or refused.
   By WebSocket; by long polling of the same offsets where sockets do not get through. */
"use strict";
(() => {
  const SILENT_MS = 12000, SOCKETS_AGAIN_MS = 60000, CHANGED_MS = 1000, SLOWEST_MS = 5000;
  const topics = new Map();
  let socket = null, ever = false, heard = Date.now(), tries = 0, polling = 0, held = false;
  const address = () => `${document.body.dataset.place}/live`;

  function tell(ok) {
    live.connected = ok;
    document.dispatchEvent(new CustomEvent("dtx:connection", { detail: { ok } }));
  }
  function take(message) {
    heard = Date.now();
    const topic = topics.get(message.topic);
    if (!topic) return;
    if (message.refused) topics.delete(message.topic);
    else topic.offset = message.to;
    topic.takers.forEach((taker) => taker(message));
  }
  const wanted = () => Object.fromEntries([...topics].map(([name, topic]) => [name, topic.offset]));
  const say = (what) => socket?.readyState === WebSocket.OPEN && socket.send(JSON.stringify(what));

  function connect() {
    if (!topics.size || socket || polling) return;
    const opened = (socket = new WebSocket(address().replace(/^/, `wss://${location.host}`)));
    let open = false;
    opened.onopen = () => { open = ever = true; heard = Date.now(); say({ follow: wanted() }); };
    opened.onmessage = (event) => {
      const message = JSON.parse(event.data);
      heard = Date.now();
      if (!live.connected) { tries = 0; tell(true); }
      if (!message.beat) take(message);
    };
    opened.onclose = (event) => {
      if (socket === opened) socket = null;
      tell(false);
      if (event.code === 4401) return location.reload(); // to the login
      tries = open ? 0 : tries + 1;
      if (tries >= 2 && !ever) return poll(); // nothing gets through: perhaps plain requests do
      setTimeout(connect, Math.min(SLOWEST_MS, 300 * 2 ** tries) * (0.7 + Math.random() * 0.6));
    };
  }
  async function poll() {
    polling = Date.now();
    while (topics.size && Date.now() - polling < SOCKETS_AGAIN_MS) {
      try {
        const asked = new URLSearchParams({ topics: JSON.stringify(wanted()) });
        const answer = await fetch(`${address()}?${asked}`, { signal: AbortSignal.timeout(40000) });
        if (answer.redirected) return location.reload();
        if (!answer.ok) throw new Error(String(answer.status));
        const messages = await answer.json();
        tell(true);
        heard = Date.now();
        messages.forEach(take);
      } catch {
        tell(false);
        await new Promise((done) => setTimeout(done, SLOWEST_MS / 2));
      }
    }
    polling = tries = 0;
    connect();
  }
  setInterval(() => {
    if (socket && live.connected && Date.now() - heard > SILENT_MS) socket.close(4000);
  }, 2000);
  addEventListener("pagehide", () => { held = true; socket?.close(1000); });
  addEventListener("pageshow", () => { if (held) { held = false; connect(); } });

  const live = (window.dtxLive = {
    connected: false,
    follow(name, offset, taker) {
      const known = topics.get(name);
      if (known) known.takers.add(taker);
      else {
        topics.set(name, { offset, takers: new Set([taker]) });
        say({ follow: { [name]: offset } });
      }
      connect();
      return () => {
        const topic = topics.get(name);
        topic?.takers.delete(taker);
        if (topic && !topic.takers.size) { topics.delete(name); say({ leave: [name] }); }
      };
    },
  });

  // What a page shows of objects is drawn anew when one of their kinds has changed, once a second at most.
  let due = 0, last = 0;
  function changed() {
    if (due) return;
    due = setTimeout(() => {
      due = 0;
      last = Date.now();
      document.dispatchEvent(new Event("dtx:changed"));
    }, Math.max(50, last + CHANGED_MS - Date.now()));
  }
  addEventListener("DOMContentLoaded", () => {
    const kinds = (document.body.dataset.kinds || "").split(" ").filter(Boolean);
    const read = Number(document.body.dataset.version);  // when the page was
    if (document.querySelector("main[data-live]"))
      for (const kind of kinds) live.follow(`status:${kind}`, read, (message) => message.refused || changed());
  });
})();
