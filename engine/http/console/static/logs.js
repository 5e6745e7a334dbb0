// Live log of a function: adds lines as the stream brings them, and hides those that the filter leaves out.
"use strict";

import { localize } from "./times.js";

const MOST = 2000; // lines in the page
const list = document.getElementById("function-log");

function cell(name, className, text) {
  const one = document.createElement(name);
  one.className = className;
  one.textContent = text;
  return one;
}

function row(line) {
  const one = document.createElement("li");
  one.className = line.error ? `${line.stream} wrong` : line.stream;
  const time = document.createElement(line.time ? "time" : "span");
  if (line.time) {
    time.dateTime = line.time;
    time.textContent = line.time.replace("T", " ").replace(/Z$/, "");
  }
  const id = cell(line.request_id ? "a" : "span", "id", line.request_id.slice(0, 13) || "instance");
  if (line.request_id) {
    id.href = list.dataset.invocations + line.request_id;
    id.title = line.request_id;
  }
  one.append(time, cell("span", "stream", line.stream), id, cell("code", "", line.text));
  return one;
}

function follow() {
  const box = list.parentElement;
  const [state, none, pause, clear] = ["log-state", "log-none", "log-pause", "log-clear"].map((id) =>
    document.getElementById(id),
  );
  const [text, request, errors] = ["log-text", "log-request", "log-errors"].map((id) => document.getElementById(id));
  const empty = none.textContent;
  let waiting = null; // lines that came while the log is paused; null: it is not
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
    const rows = lines.map(row);
    filter(rows);
    const some = document.createDocumentFragment();
    some.append(...rows);
    localize(some);
    list.append(some);
    while (list.children.length > MOST) (list.querySelector("li[hidden]") ?? list.firstElementChild).remove();
    if (rows.some((one) => !one.hidden)) none.hidden = true;
    if (below) box.scrollTop = box.scrollHeight;
  }

  function note(text) {
    const one = document.createElement("li");
    one.className = "engine";
    one.append(cell("span", "", ""), cell("span", "stream", "engine"), cell("span", "id", ""), cell("code", "", text));
    list.append(one);
  }

  const stream = new EventSource(list.dataset.stream);
  stream.addEventListener("begin", (event) => {
    if (waiting === null) list.replaceChildren();
    else [waiting, again] = [[], true];
    add(JSON.parse(event.data));
    if (waiting === null) {
      box.scrollTop = box.scrollHeight;
      refilter();
      state.textContent = "Live";
    }
  });
  stream.addEventListener("lines", (event) => add(JSON.parse(event.data)));
  stream.addEventListener("dropped", (event) => note(`${JSON.parse(event.data).lines} lines were dropped`));
  stream.addEventListener("error", () => {
    const ended = stream.readyState === EventSource.CLOSED;
    state.textContent = ended ? "The log cannot be followed; reload the page" : "No connection; trying again";
  });

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
  pause.hidden = clear.hidden = false;
  box.scrollTop = box.scrollHeight;
}

if (list !== null && list.dataset.stream) follow();
