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
  let before = runtime.selectedOptions[0].dataset;
  runtime.addEventListener("change", () => {
    const next = runtime.selectedOptions[0].dataset;
    if (handler.value === before.handler || handler.value === "") handler.value = next.handler;
    if (code.value === before.code || code.value.trim() === "") code.value = next.code;
    before = next;
  });
}

// Events are checked while they are typed, and before they are sent.
function problemOf(text) {
  if (text.trim() === "" || text.length > 262144) return ""; // the engine checks longer ones
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `not valid JSON: ${error.message}`;
  }
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
