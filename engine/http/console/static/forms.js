// Asks before a form is sent, if the form or the pressed button has data-confirm, and closes menus by Escape, or by a click elsewhere.
"use strict";

function ask(form, pressed, question) {
  const dialog = document.createElement("dialog");
  const text = document.createElement("p");
  const actions = document.createElement("div");
  const cancel = document.createElement("button");
  const go = document.createElement("button");
  const asked = pressed ?? form.querySelector("button[type=submit]");
  text.textContent = question;
  text.id = "confirm-text";
  dialog.setAttribute("aria-labelledby", text.id);
  actions.className = "actions";
  cancel.textContent = "Cancel";
  go.textContent = asked ? asked.textContent : "OK";
  go.className = asked ? asked.className : "";
  cancel.addEventListener("click", () => dialog.close());
  go.addEventListener("click", () => {
    form.dataset.confirmed = "yes";
    dialog.close();
    form.requestSubmit(pressed);
  });
  dialog.addEventListener("close", () => dialog.remove());
  actions.append(cancel, go);
  dialog.append(text, actions);
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  const question = event.submitter?.dataset.confirm ?? form.dataset.confirm;
  if (question === undefined || form.dataset.confirmed === "yes") return;
  event.preventDefault();
  ask(form, event.submitter, question);
});

function openMenus() {
  return document.querySelectorAll("details.menu[open], details.chooser[open]");
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of openMenus()) {
    const inside = menu.contains(document.activeElement);
    menu.open = false;
    if (inside) menu.querySelector("summary").focus();
  }
});

document.addEventListener("click", (event) => {
  for (const menu of openMenus()) if (!menu.contains(event.target)) menu.open = false;
});
