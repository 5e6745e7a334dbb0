// Adds and removes rows of lists in forms. Without scripts, spare rows take new entries.
"use strict";

function renumber(list) {
  [...list.children].forEach((row, index) => {
    for (const field of row.querySelectorAll("[data-label]")) {
      const remove = field.dataset.remove !== undefined;
      field.setAttribute("aria-label", remove ? `Remove row ${index + 1}` : `${field.dataset.label}, row ${index + 1}`);
    }
  });
}

function prepare(rows) {
  const list = rows.querySelector("ul");
  const add = rows.querySelector("[data-add]");
  const spare = [...list.querySelectorAll("[data-spare]")];
  if (add === null || spare.length === 0) return;
  const empty = spare[0].cloneNode(true);
  empty.removeAttribute("data-spare");
  for (const row of list.children.length > spare.length ? spare : spare.slice(1)) {
    const fields = [...row.querySelectorAll("input, textarea")];
    if (fields.every((one) => one.value === one.defaultValue)) row.remove(); // no text was typed before this script ran
  }
  for (const button of [add, ...list.querySelectorAll("[data-remove]"), ...empty.querySelectorAll("[data-remove]")]) {
    button.hidden = false;
  }
  add.addEventListener("click", () => {
    const row = empty.cloneNode(true);
    list.append(row);
    renumber(list);
    row.querySelector("input:not([type=hidden]), select").focus();
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-remove]");
    if (button === null) return;
    button.closest("li").remove();
    renumber(list);
    add.focus();
  });
  renumber(list);
}

document.querySelectorAll("[data-rows]").forEach(prepare);
