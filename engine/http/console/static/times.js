// Shows the times of a page in the reader's time zone. The server writes UTC, which stays in the title.
"use strict";

const button = document.getElementById("zone");
const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
let utc = localStorage.getItem("times") === "utc";

function two(number) {
  return String(number).padStart(2, "0");
}

// Formats a time like the server does, which writes no date where another time of the same day stands before.
function local(moment, like) {
  const date = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} `;
  const clock = `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
  const rest = like.includes(".") ? `.${String(moment.getMilliseconds()).padStart(3, "0")}` : "";
  return (like.includes("-") ? date : "") + clock + rest;
}

export function localize(root) {
  for (const one of root.querySelectorAll("time[datetime]")) {
    const written = one.dateTime;
    const moment = new Date(/Z|[+-]\d\d:\d\d$/.test(written) ? written : `${written}Z`);
    if (isNaN(moment)) continue;
    const exact = written.replace("T", " ").replace(/Z$/, "");
    one.dataset.utc ??= one.textContent;
    const ago = one.dataset.ago !== undefined;
    if (!ago) one.textContent = utc ? one.dataset.utc : local(moment, one.dataset.utc);
    const here = `${local(moment, exact)} ${name}`;
    one.title = ago ? `${here}, ${exact} UTC` : utc ? here : `${exact} UTC`;
  }
}

function show() {
  localize(document);
  button.previousElementSibling.textContent = utc || name === "UTC" ? "Times are UTC." : `Times are local (${name}).`;
  button.textContent = utc ? "Show local times" : "Show UTC";
}

if (button !== null) {
  button.hidden = name === "UTC";
  button.addEventListener("click", () => {
    utc = !utc;
    localStorage.setItem("times", utc ? "utc" : "local");
    show();
  });
  show();
}
