// Selects all rows of a list at once. Without scripts, each row has its own checkbox.
"use strict";

function boxes(form) {
  return [...form.querySelectorAll("tbody input[type=checkbox]")];
}

function show(form) {
  const all = form.querySelector("[data-select-all]");
  if (all === null) return;
  const every = boxes(form);
  const checked = every.filter((one) => one.checked).length;
  all.checked = checked > 0 && checked === every.length;
  all.indeterminate = checked > 0 && checked < every.length;
}

document.addEventListener("change", (event) => {
  const form = event.target.closest("form.selection");
  if (form === null) return;
  if (event.target.dataset.selectAll !== undefined) {
    for (const one of boxes(form)) one.checked = event.target.checked;
  }
  show(form);
});

// Rows that came after the box was checked.
document.addEventListener("DOMContentLoaded", () => {
  for (const all of document.querySelectorAll("form.selection [data-select-all]:checked")) {
    all.dispatchEvent(new Event("change", { bubbles: true }));
  }
});
