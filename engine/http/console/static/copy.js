// Copies the text of an element: the one that a button names in data-copy.
"use strict";

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
}

async function copy(button) {
  const element = document.getElementById(button.dataset.copy);
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(element.textContent);
    button.textContent = "Copied";
  } catch {
    select(element); // without https, browsers let only the user copy
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

function show() {
  for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button !== null) copy(button);
});
new MutationObserver(show).observe(document.getElementById("main"), { childList: true, subtree: true, attributeFilter: ["hidden"] });
show();
