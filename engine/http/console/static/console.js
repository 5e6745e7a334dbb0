// Keeps the page up to date while it is looked at: what is in <main> is fetched again, and only what differs is changed.
"use strict";

const EVERY = 2000;
const main = document.getElementById("main");
const button = document.getElementById("live");
let wanted = sessionStorage.getItem("live") !== "off";
let welcome = true;
let timer = 0;

function show(state) {
  button.dataset.state = state;
  button.textContent = { on: "live", off: "paused", lost: "no answer", ended: "final", out: "sign in again" }[state];
  button.setAttribute("aria-pressed", String(state === "on"));
}

// What people have opened or typed is theirs.
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
  const had = [...old.childNodes], has = [...next.childNodes];
  has.forEach((child, place) => {
    if (place < had.length) morph(had[place], child);
    else old.append(child.cloneNode(true));
  });
  had.slice(has.length).forEach((child) => child.remove());
}

async function refresh() {
  try {
    const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
    welcome = ![401, 403, 429].includes(reply.status); // asked again and again, it would count as guessing
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const next = page.getElementById("main");
    if (!reply.ok || next === null) throw new Error(reply.statusText);
    morph(main, next);
    show("on");
  } catch {
    show("lost");
  }
}

function plan() {
  clearTimeout(timer);
  if (main.dataset.live === undefined) show("ended");
  else if (!welcome) show("out");
  else if (!wanted) show("off");
  else if (!document.hidden) {
    timer = setTimeout(async () => {
      if (getSelection().isCollapsed) await refresh();
      plan();
    }, EVERY);
  }
}

if (button !== null && main.dataset.live !== undefined) {
  button.hidden = false;
  show(wanted ? "on" : "off");
  button.addEventListener("click", () => {
    if (!welcome) return location.reload();
    wanted = !wanted;
    sessionStorage.setItem("live", wanted ? "on" : "off");
    if (wanted) show("on");
    plan();
  });
  document.addEventListener("visibilitychange", plan);
  plan();
}
