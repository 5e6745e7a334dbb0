// Goes on with a search that is not finished: fetches step after step and adds what it finds, until the page is full.
"use strict";

import { localize } from "./times.js";

const FULL = 50; // rows
let running = false;

async function step(found, link) {
  const reply = await fetch(link.href, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const next = page.getElementById("found");
  if (!reply.ok || next === null) throw new Error(reply.statusText);
  localize(next);
  const list = found.querySelector("tbody"), more = next.querySelector("tbody");
  if (list === null) {
    found.replaceChildren(...next.childNodes);
  } else {
    if (more !== null) list.append(...more.children);
    found.querySelector(".pager").replaceWith(next.querySelector(".pager") ?? "");
  }
  if (next.dataset.search === undefined) delete found.dataset.search;
}

async function search(found) {
  running = true;
  while (running) {
    const link = found.querySelector("[data-search-on]");
    if (link === null || found.querySelectorAll("tbody tr").length >= FULL) break;
    link.textContent = "Stop";
    await step(found, link);
  }
  running = false;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-search-on]");
  if (link === null || event.ctrlKey || event.metaKey || link.rel === "prev") return;
  event.preventDefault();
  if (running) {
    running = false;
    link.textContent = "Search on";
  } else {
    search(link.closest("#found")).catch(() => location.assign(link.href));
  }
});
