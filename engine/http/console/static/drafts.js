// Keeps unsent text: asks before its page is left, and sends a form only if the reader is still signed in.
"use strict";

const page = document.getElementById("main");
const signedIn = document.querySelector(".account form") !== null;
const unsent = new Set(); // forms with changes
let checked = null; // form that is sent now

function changed(form) {
  if (form?.method === "post" && !form.matches(".selection, .sign-in form")) unsent.add(form);
}

page.addEventListener("input", ({ target }) => changed(target.form));
// Text may have been typed before this script ran, or restored by the browser.
for (const { form, value, defaultValue } of page.querySelectorAll("textarea, [type=text]")) {
  if (value !== defaultValue) changed(form);
}
if (page.querySelector("[role=alert]") !== null) { // the engine has refused what the form has
  page.querySelectorAll("form.settings, form.editor, form:has(.editor)").forEach((form) => unsent.add(form));
}

// A session that began meanwhile has another token for forms.
async function send(form, pressed) {
  const reply = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (reply !== null && reply.status !== 401) {
    const now = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector("main [name=form_token]");
    if (now !== null) form.elements.form_token.value = now.value;
    checked = form;
    form.requestSubmit(pressed);
    checked = null;
    return;
  }
  const note = document.getElementById("unsent") ?? document.createElement("p");
  [note.id, note.className] = ["unsent", "banner warn"];
  note.setAttribute("role", "alert");
  note.innerHTML = "Not sent: your session has ended, or the engine does not reply. Your text stays here. Sign in, then send it "
    + "again. <a class='button' href='/console/sign-in' target='_blank'>Sign in in a new tab</a>";
  page.prepend(note);
  note.scrollIntoView({ block: "nearest" });
}

addEventListener("submit", (event) => {
  if (!signedIn || !unsent.has(event.target) || checked === event.target) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  send(event.target, event.submitter);
}, true);
// Behind the questions of other scripts. A run on the tab Test is sent by its own script.
addEventListener("submit", ({ target, defaultPrevented }) => {
  if (!defaultPrevented || "trial" in target.dataset) unsent.delete(target);
});
addEventListener("beforeunload", (event) => {
  if ([...unsent].some((form) => form.isConnected)) event.preventDefault();
});
