// Adds, moves and removes retry rules in their form. Without scripts, the buttons send the form, which stores nothing.
"use strict";

function renumber(list, add) {
  const rules = [...list.children];
  rules.forEach((rule, index) => {
    rule.querySelector(".rule-number").textContent = String(index + 1);
    rule.querySelector("[data-move=up]").disabled = index === 0;
    rule.querySelector("[data-move=down]").disabled = index === rules.length - 1;
  });
  add.disabled = rules.length >= Number(list.dataset.rules);
}

function move(list, add, button) {
  const rule = button.closest("li");
  const { move: action } = button.dataset;
  if (action === "remove") {
    const next = rule.nextElementSibling ?? rule.previousElementSibling;
    rule.remove();
    renumber(list, add);
    (next?.querySelector("[data-move=remove]") ?? add).focus();
    return;
  }
  if (action === "up") rule.previousElementSibling?.before(rule);
  else rule.nextElementSibling?.after(rule);
  renumber(list, add);
  const again = rule.querySelector(`[data-move=${action}]:enabled`) ?? rule.querySelector("[data-move]:enabled");
  again.focus();
}

function prepare(list) {
  const add = document.querySelector("[data-add-rule]");
  if (add === null) return;
  const template = add.parentElement.querySelector("template");
  let added = 0;
  add.addEventListener("click", (event) => {
    event.preventDefault();
    const rule = template.content.firstElementChild.cloneNode(true);
    added += 1;
    for (const one of rule.querySelectorAll("[id]")) one.id = one.id.replace("-new-", `-new${added}-`);
    for (const one of rule.querySelectorAll("[for]")) one.htmlFor = one.htmlFor.replace("-new-", `-new${added}-`);
    list.append(rule);
    renumber(list, add);
    rule.querySelector("input:not([type=hidden])").focus();
  });
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-move]");
    if (button === null) return;
    event.preventDefault();
    move(list, add, button);
  });
}

document.querySelectorAll("ol[data-rules]").forEach(prepare);
