// Editors of code and events: Tab indents until Escape is pressed. Files that are too large are not sent.
"use strict";

for (const editor of document.querySelectorAll("textarea[data-editor]")) {
  let leaving = false;
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      leaving = true;
    } else if (event.key === "Tab" && !leaving && !event.shiftKey && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      document.execCommand("insertText", false, editor.dataset.editor || "    "); // can be undone
    } else if (event.key !== "Shift" && event.key !== "Tab") {
      leaving = false;
    }
  });
  editor.addEventListener("blur", () => { leaving = false; });
}

for (const input of document.querySelectorAll("input[type=file][data-limit]")) {
  input.addEventListener("change", () => {
    const limit = Number(input.dataset.limit), file = input.files[0];
    const large = file !== undefined && limit > 0 && file.size > limit;
    input.setCustomValidity(large ? `The file has ${(file.size / 1048576).toFixed(1)} MiB; at most ${limit / 1048576} MiB are allowed.` : "");
    input.reportValidity();
  });
}

// A form that takes long says so, and is sent once.
document.addEventListener("submit", (event) => {
  const form = event.target;
  const asks = form.dataset.confirm !== undefined && form.dataset.confirmed !== "yes";
  if (event.defaultPrevented || asks || form.method !== "post") return;
  const file = form.querySelector("input[type=file]");
  const pressed = event.submitter || form.querySelector("button[type=submit]");
  const text = pressed.dataset.busy || (file !== null && file.files.length > 0 ? "Uploading…" : "");
  if (text === "") return;
  const before = pressed.textContent;
  setTimeout(() => { // after the browser has read the form
    pressed.textContent = text;
    for (const button of form.querySelectorAll("button")) button.disabled = true;
  });
  addEventListener("pageshow", () => { // the reader went back
    pressed.textContent = before;
    for (const button of form.querySelectorAll("button")) button.disabled = false;
  });
});

// The runtime's handler and template replace those of the one before, unless they were changed.
const runtime = document.getElementById("f-runtime");
const handler = document.getElementById("f-handler"), code = document.getElementById("f-code");
if (runtime !== null && runtime.selectedOptions.length > 0 && handler !== null && code !== null) {
  let before = ([...runtime.options].find((one) => one.defaultSelected) ?? runtime.options[0]).dataset;
  const adapt = () => {
    const next = runtime.selectedOptions[0].dataset;
    if (next === before) return;
    if (handler.value === before.handler || handler.value === "") handler.value = next.handler;
    if (code.value === before.code || code.value.trim() === "") code.value = next.code;
    before = next;
  };
  runtime.addEventListener("change", adapt);
  adapt(); // it may have been chosen before this script ran
}

// Events are checked while they are typed, and before they are sent.
const SPACE = /[ \t\r\n]*/y;
const SCALAR = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;

// Returns the index at which a text stops being JSON; -1 if it is JSON.
function errorIn(text) {
  const open = []; // closing brackets that are due
  let at = 0, expected = "value";
  const skip = () => { SPACE.lastIndex = at; SPACE.exec(text); at = SPACE.lastIndex; };
  for (skip(); at < text.length; skip()) {
    const one = text[at];
    if (expected === "end") return at;
    if (expected === "value" || expected === "first value") {
      if (one === "{" || one === "[") {
        open.push(one === "{" ? "}" : "]");
        expected = one === "{" ? "first key" : "first value";
        at += 1;
        continue;
      }
    } else if (expected === "colon") {
      if (one !== ":") return at;
      expected = "value";
      at += 1;
      continue;
    } else if (expected === "comma" && one === ",") {
      expected = open.at(-1) === "}" ? "key" : "value";
      at += 1;
      continue;
    }
    if (["first key", "first value", "comma"].includes(expected) && one === open.at(-1)) {
      open.pop();
      expected = open.length > 0 ? "comma" : "end";
      at += 1;
      continue;
    }
    const key = expected.endsWith("key");
    SCALAR.lastIndex = at;
    if (expected === "comma" || (key && one !== '"') || !SCALAR.test(text)) return at;
    at = SCALAR.lastIndex;
    expected = key ? "colon" : open.length > 0 ? "comma" : "end";
  }
  return expected === "end" ? -1 : at;
}

function problemOf(text) {
  if (text.trim() === "" || text.length > 262144) return ""; // the engine checks longer ones
  const at = errorIn(text);
  if (at < 0) return "";
  const before = text.slice(0, at).split("\n");
  const found = at < text.length ? `unexpected ${JSON.stringify(text[at])}` : "the text ends too early";
  return `not valid JSON at line ${before.length}, column ${before.at(-1).length + 1}: ${found}`;
}

for (const editor of document.querySelectorAll("textarea[data-json]")) {
  const message = document.getElementById(`${editor.id}-error`);
  const check = () => {
    const problem = problemOf(editor.value);
    message.textContent = problem;
    message.hidden = problem === "";
    editor.toggleAttribute("aria-invalid", problem !== "");
    if (problem !== "") editor.setAttribute("aria-invalid", "true");
    return problem === "";
  };
  let timer = 0;
  editor.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(check, 400);
  });
  editor.form.addEventListener("submit", (event) => {
    if (check()) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    editor.focus();
  });
  const format = document.querySelector(`[data-format="${editor.id}"]`);
  format.hidden = false;
  format.addEventListener("click", () => {
    if (check() && editor.value.trim() !== "") editor.value = JSON.stringify(JSON.parse(editor.value), null, 2);
  });
}

document.querySelector("[data-focus]")?.focus({ preventScroll: true });
