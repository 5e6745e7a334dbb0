// Keeps a visible page up to date: fetches it again, and changes only the parts of <main> that differ.
"use strict";

import { localize } from "./times.js";

const INTERVAL = 2000; // milliseconds
const main = document.getElementById("main");
const button = document.getElementById("live");
let enabled = sessionStorage.getItem("live") !== "off";
let authorized = true;
let timer = 0;

function show(state) {
  button.dataset.state = state;
  button.textContent = { on: "live", off: "paused", lost: "no reply", ended: "final", out: "sign in again" }[state];
  button.setAttribute("aria-pressed", String(state === "on"));
}

// Keeps what the user has opened or typed.
function morph(old, next) {
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName || old.id !== next.id) {
    old.replaceWith(next.cloneNode(true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  if (old.dataset.keep !== undefined) return;
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const before = [...old.childNodes], after = [...next.childNodes];
  after.forEach((child, index) => {
    if (index < before.length) morph(before[index], child);
    else old.append(child.cloneNode(true));
  });
  before.slice(after.length).forEach((child) => child.remove());
}

async function refresh() {
  try {
    const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
    authorized = ![401, 403, 429].includes(reply.status); // further requests would count as failed logins
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const next = page.getElementById("main");
    if (!reply.ok || next === null) throw new Error(reply.statusText);
    localize(next);
    morph(main, next);
    show("on");
  } catch {
    show("lost");
  }
}

function plan() {
  clearTimeout(timer);
  if (main.dataset.live === undefined) show("ended");
  else if (!authorized) show("out");
  else if (!enabled) show("off");
  else if (!document.hidden) {
    timer = setTimeout(async () => {
      if (getSelection().isCollapsed) await refresh();
      plan();
    }, INTERVAL);
  }
}

for (const one of document.querySelectorAll("nav [aria-current]")) {
  const nav = one.closest("nav");
  nav.scrollLeft = one.offsetLeft - nav.offsetLeft - (nav.clientWidth - one.offsetWidth) / 2;
}

if (button !== null && main.dataset.live !== undefined) {
  button.hidden = false;
  show(enabled ? "on" : "off");
  button.addEventListener("click", () => {
    if (!authorized) return location.reload();
    enabled = !enabled;
    sessionStorage.setItem("live", enabled ? "on" : "off");
    if (enabled) show("on");
    plan();
  });
  document.addEventListener("visibilitychange", plan);
  plan();
}
