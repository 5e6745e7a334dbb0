// Rows of a log.
"use strict";

function cell(name, className, text) {
  const one = document.createElement(name);
  one.className = className;
  one.textContent = text;
  return one;
}

// Returns a row for a line. Its request id is a link if there are pages of invocations.
export function rowOf(line, invocations = "") {
  const one = document.createElement("li");
  one.className = line.error ? `${line.stream} wrong` : line.stream;
  const time = document.createElement(line.time ? "time" : "span");
  if (line.time) {
    time.dateTime = line.time;
    time.textContent = line.time.replace("T", " ").replace(/Z$/, "");
  }
  const linked = line.request_id && invocations;
  const id = cell(linked ? "a" : "span", "id", line.request_id.slice(0, 13) || "instance");
  if (linked) {
    id.href = invocations + line.request_id;
    id.title = line.request_id;
  }
  one.append(time, cell("span", "stream", line.stream), id, cell("code", "", line.text));
  return one;
}

// Returns a row for a note of the engine, such as about missing lines.
export function noteOf(text) {
  const one = document.createElement("li");
  one.className = "engine";
  one.append(cell("span", "", ""), cell("span", "stream", "engine"), cell("span", "id", ""), cell("code", "", text));
  return one;
}
