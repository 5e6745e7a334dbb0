// Changes elements into those of a newer page. Keeps what the user has opened or typed, and where the focus is.
"use strict";

// Names an element among its siblings, so that it is found again when others come before it.
function keyOf(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return "";
  return node.id || node.dataset.key || node.getAttribute("aria-labelledby") || "";
}

// Returns the sibling without a key that becomes the child: an element of the same kind, which others may precede that
// are gone, or a text at this place.
function sameKind(at, child) {
  if (child.nodeType !== Node.ELEMENT_NODE) return at?.nodeName === child.nodeName ? at : undefined;
  while (at !== null && (keyOf(at) || at.nodeName !== child.nodeName)) at = at.nextSibling;
  return at ?? undefined;
}

function isKept(node) {
  return node.nodeType === Node.ELEMENT_NODE && node.dataset.keep !== undefined;
}

export function morph(old, next) {
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) {
    old.replaceWith(next.cloneNode(true));
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== next.nodeValue) old.nodeValue = next.nodeValue;
    return;
  }
  if (isKept(old)) return;
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphChildren(old, next);
}

function morphChildren(old, next) {
  const keyed = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  const wanted = new Set([...next.childNodes].map(keyOf));
  let at = old.firstChild;

  // Returns the next old child that has no key, or whose key is still wanted. Removes those before it.
  function skipGone() {
    while (at !== null && keyOf(at) && !wanted.has(keyOf(at))) {
      const gone = at;
      at = at.nextSibling;
      if (!isKept(gone)) gone.remove();
    }
  }

  for (const child of next.childNodes) {
    skipGone();
    const key = keyOf(child);
    const same = key ? keyed.get(key) : sameKind(at, child);
    if (same === undefined) {
      old.insertBefore(child.cloneNode(true), at);
      continue;
    }
    while (at !== null && at !== same && !keyOf(at)) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
      skipGone();
    }
    if (at === same) at = at.nextSibling;
    else old.insertBefore(same, at);
    morph(same, child);
  }
  while (at !== null) {
    const gone = at;
    at = at.nextSibling;
    if (!isKept(gone) || !keyOf(gone)) gone.remove();
  }
}
