// Carries out long actions: sends the form that a page of progress has on by itself, until a page has none.
"use strict";

import { localize } from "./times.js";

const main = document.getElementById("main");

async function go(form) {
  while (form !== null) {
    const reply = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const next = page.getElementById("main");
    if (next === null) return location.reload();
    localize(next);
    main.replaceChildren(...next.childNodes);
    form = main.querySelector("form[data-steps]");
  }
}

const form = main.querySelector("form[data-steps]");
if (form !== null) go(form).catch(() => {}); // without a reply, the button of the form goes on
