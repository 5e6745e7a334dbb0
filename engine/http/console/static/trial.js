// Synchronous runs on the tab Test: shows the log while the function runs, then the end of the run.
"use strict";

import { noteOf, rowOf } from "./log_rows.js";
import { morph } from "./morph.js";
import { localize } from "./times.js";

const MOST = 2000; // lines in the page
const main = document.getElementById("main");
const form = main.querySelector("form[data-trial]");

// Yields the events of a stream: name and data.
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
    const messages = (rest + value).split("\n\n");
    rest = messages.pop();
    for (const message of messages) {
      const [, name, data] = message.match(/^event: (.*?)\ndata: (.*)$/s) ?? [];
      if (name) yield [name, JSON.parse(data)];
    }
  }
}

function add(list, rows) {
  const box = list.parentElement;
  const below = box.scrollHeight - box.scrollTop - box.clientHeight < 40; // follows only a reader who is at the end
  list.append(...rows);
  localize(list);
  while (list.children.length > MOST) list.firstElementChild.remove();
  if (below) box.scrollTop = box.scrollHeight;
}

// Shows the page after the run, with all lines that came in place of the end of the log.
function end(text, log) {
  const next = new DOMParser().parseFromString(text, "text/html").getElementById("main");
  localize(next);
  log.remove();
  morph(main, next);
  const outcome = document.getElementById("outcome");
  if (log.querySelector("li") !== null) {
    const cut = document.getElementById("run-log");
    if (cut !== null) cut.replaceChildren(log);
    else outcome.lastElementChild.replaceWith(log); // an error of the engine; no result
    log.scrollTop = log.scrollHeight;
  }
  outcome.focus({ preventScroll: true });
}

function fail(message) {
  document.getElementById("outcome-title").textContent = "Result";
  const one = document.createElement("p");
  one.className = "error";
  one.setAttribute("role", "alert");
  one.textContent = message;
  document.getElementById("outcome-title").after(one);
}

async function run() {
  const outcome = document.getElementById("outcome");
  outcome.replaceChildren(document.getElementById("running").content.cloneNode(true));
  outcome.parentElement.classList.add("done"); // on a narrow page, it is above the form
  outcome.scrollIntoView({ block: "nearest" });
  const log = outcome.querySelector(".log-box");
  const list = log.querySelector(".log");
  const reply = await fetch(form.action, {
    method: "POST",
    headers: { Accept: "text/event-stream" },
    body: new FormData(form),
  });
  if (!reply.headers.get("Content-Type")?.startsWith("text/event-stream")) return form.submit(); // nothing ran yet
  for await (const [name, data] of eventsOf(reply.body)) {
    if (name === "lines") add(list, data.map((line) => rowOf(line)));
    else if (name === "dropped") add(list, [noteOf(`${data.lines} lines were dropped`)]);
    else if (name === "end") return end(data, log);
    else if (name === "failed") return fail(data);
  }
  throw new Error("the stream ended before the run");
}

form?.addEventListener("submit", (event) => {
  if (event.submitter?.hasAttribute("formaction") || form.elements.mode?.value !== "sync") return;
  event.preventDefault();
  const buttons = [...form.querySelectorAll("button")];
  for (const one of buttons) one.disabled = true;
  run()
    .catch(() => fail("The connection was lost. The run may go on; see the tab Logs."))
    .finally(() => {
      for (const one of buttons) one.disabled = false;
    });
});
