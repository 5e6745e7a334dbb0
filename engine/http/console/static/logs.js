// Live log of a function: adds lines as the stream brings them, and hides those that the filter leaves out.
"use strict";

import { noteOf, rowOf } from "./log_rows.js";
import { localize } from "./times.js";

const MOST = 2000; // lines in the page
const PATIENCE = 3000; // milliseconds until a lost connection is told: one of many windows has it now and then
const list = document.getElementById("function-log");

function follow() {
  const box = list.parentElement;
  const [state, none, pause, clear] = ["log-state", "log-none", "log-pause", "log-clear"].map((id) =>
    document.getElementById(id),
  );
  const [text, request, errors] = ["log-text", "log-request", "log-errors"].map((id) => document.getElementById(id));
  const empty = none.textContent;
  let waiting = null; // lines that came while the log is paused; null: it is not
  let stream = null;
  let position = ""; // after the lines that the page has
  let again = false; // the waiting lines begin with those that the list has

  function filter(rows) {
    const wanted = text.value.trim().toLowerCase();
    const id = request.value.trim();
    for (const one of rows) {
      const link = one.querySelector(".id");
      one.hidden =
        (errors.checked && !one.classList.contains("wrong")) ||
        !one.lastElementChild.textContent.toLowerCase().includes(wanted) ||
        !(link.title || "").startsWith(id);
    }
  }

  function refilter() {
    filter(list.children);
    none.hidden = list.querySelector("li:not([hidden])") !== null;
    none.textContent = list.children.length ? "No line matches the filter." : empty;
  }

  function add(lines) {
    if (waiting !== null) {
      waiting = [...waiting, ...lines].slice(-MOST);
      state.textContent = `Paused, ${waiting.length} new line${waiting.length === 1 ? "" : "s"}`;
      return;
    }
    const below = box.scrollHeight - box.scrollTop - box.clientHeight < 40; // follows only a reader who is at the end
    const rows = lines.map((line) => rowOf(line, list.dataset.invocations));
    filter(rows);
    const some = document.createDocumentFragment();
    some.append(...rows);
    localize(some);
    list.append(some);
    while (list.children.length > MOST) (list.querySelector("li[hidden]") ?? list.firstElementChild).remove();
    if (rows.some((one) => !one.hidden)) none.hidden = true;
    if (below) box.scrollTop = box.scrollHeight;
  }

  // Without a position, the engine sends the last lines again.
  function open() {
    const url = new URL(list.dataset.stream, location.href);
    if (position) url.searchParams.set("after", position);
    stream = new EventSource(url);
    const on = (name, act) => stream.addEventListener(name, (event) => {
      position = event.lastEventId;
      act(JSON.parse(event.data));
    });
    on("begin", (lines) => {
      if (waiting === null) list.replaceChildren();
      else [waiting, again] = [[], true];
      add(lines);
      if (waiting !== null) return;
      box.scrollTop = box.scrollHeight;
      refilter();
      state.textContent = "Live";
    });
    on("lines", add);
    on("dropped", ({ lines }) => list.append(noteOf(`${lines} lines were dropped`)));
    stream.addEventListener("open", () => {
      if (position && waiting === null) state.textContent = "Live";
    });
    stream.addEventListener("error", () => {
      const ended = stream?.readyState === EventSource.CLOSED;
      if (ended) state.textContent = "The log cannot be followed; reload the page";
      else setTimeout(() => {
        if (stream?.readyState === EventSource.CONNECTING) state.textContent = "No connection; trying again";
      }, PATIENCE);
    });
  }

  function close() {
    stream?.close();
    stream = null;
  }

  // A browser has few connections, so only visible pages keep one.
  function plan() {
    if (document.hidden) close();
    else if (stream === null) open();
  }

  for (const one of [text, request]) one.addEventListener("input", refilter);
  errors.addEventListener("change", refilter);
  pause.addEventListener("click", () => {
    const held = waiting;
    waiting = held === null ? [] : null;
    pause.textContent = held === null ? "Continue" : "Pause";
    state.textContent = held === null ? "Paused" : "Live";
    if (again) list.replaceChildren();
    again = false;
    if (held !== null) add(held);
  });
  clear.addEventListener("click", () => {
    list.replaceChildren();
    refilter();
  });
  document.addEventListener("visibilitychange", plan);
  addEventListener("pagehide", close);
  addEventListener("pageshow", plan);
  pause.hidden = clear.hidden = false;
  box.scrollTop = box.scrollHeight;
  plan();
}

if (list !== null && list.dataset.stream) follow();
