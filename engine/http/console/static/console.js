// Keeps a visible page up to date: fetches it again when the engine tells of a change, and changes only the parts of
// <main> that differ. Without such events, it is fetched at intervals.
"use strict";

import { morph } from "./morph.js";
import { localize } from "./times.js";

const INTERVAL = 2000; // milliseconds between fetches without events
const RETRY = 15000; // milliseconds until events are asked for again
const REST = 4; // times that the duration of a fetch passes until the next, so that slow pages keep the engine free
const LONGEST = 5000; // milliseconds of that; a fetch that waited for a restart took long for another reason
const SILENCE = 15000; // milliseconds without an event after which the connection counts as broken
const main = document.getElementById("main");
const button = document.getElementById("live");
let enabled = sessionStorage.getItem("live") !== "off";
let authorized = true;
let gone = false; // the thing that the page shows was deleted
let fetching = false;
let stale = false; // a change was not fetched yet
let stream = null;
let timer = 0;
let refusedAt = -Infinity;

function show(state) {
  button.dataset.state = state;
  button.textContent = { on: "live", off: "paused", lost: "no reply", ended: "final", out: "sign in again", gone: "deleted" }[state];
  button.setAttribute("aria-pressed", String(state === "on"));
}

// The form that a question is about must stay as it is until the answer.
function isAsking() {
  return document.querySelector("dialog[open]") !== null;
}

// Returns whether the page was fetched.
async function refresh() {
  try {
    const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
    // Further requests would count as failed logins.
    authorized = !reply.redirected && ![401, 403, 429].includes(reply.status);
    gone = reply.status === 404;
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const next = page.getElementById("main");
    if (!reply.ok || !authorized || next === null) throw new Error(reply.statusText);
    if (isAsking()) {
      stale = true;
    } else {
      localize(next);
      morph(main, next);
    }
    if (enabled) show("on"); // the user may have paused meanwhile
    return true;
  } catch {
    if (enabled) show(gone ? "gone" : "lost");
    return false;
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// Fetches the page once, or once more after the fetch that runs. Waits while the user selects text or is asked.
async function update() {
  stale = true;
  if (fetching || stream === null || !getSelection().isCollapsed) return;
  fetching = true;
  while (stale && authorized && !gone && stream !== null && !isAsking()) {
    stale = false;
    const began = performance.now();
    await refresh();
    await pause(Math.min(REST * (performance.now() - began), LONGEST));
  }
  fetching = false;
  if (main.dataset.live === undefined || !authorized || gone) plan();
}

function close() {
  clearTimeout(timer);
  stream?.close();
  stream = null;
}

function giveUp() {
  close();
  refusedAt = performance.now();
  plan();
}

// The engine sends an event every few seconds, so silence means that something in between holds events back.
function listen() {
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(giveUp, SILENCE);
  };
  stream = new EventSource("/console/events");
  for (const name of ["open", "change"]) {
    stream.addEventListener(name, () => {
      heard();
      update();
    });
  }
  stream.addEventListener("error", () => {
    if (stream?.readyState === EventSource.CLOSED) giveUp();
    else show("lost"); // the browser connects again by itself
  });
  heard();
}

function plan() {
  close();
  if (main.dataset.live === undefined) show("ended");
  else if (!authorized) show("out");
  else if (gone) show("gone");
  else if (!enabled) show("off");
  else if (document.hidden) return; // a browser has few connections, so only visible pages keep one
  else if (performance.now() - refusedAt > RETRY) listen();
  else {
    timer = setTimeout(async () => {
      const lost = button.dataset.state === "lost";
      if (getSelection().isCollapsed && (await refresh()) && lost) refusedAt = -Infinity; // the engine is back
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
  document.addEventListener("selectionchange", () => {
    if (stale && getSelection().isCollapsed) update();
  });
  document.addEventListener("close", () => { if (stale) update(); }, true); // of a dialog; the event does not bubble
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => {
    if (event.persisted) plan();
  });
  plan();
}
