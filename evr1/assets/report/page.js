"use strict";
// What pages share. What a model wrote is untrusted: text goes in through textContent only.
const DATA = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);

function element(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}

const amount = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const percent = (value) => (100 * value).toFixed(1) + " %";

// Pictures that one click enlarges.
function strip(frames) {
  const label = `${frames.length} frames of the prompt, in order`;
  const box = element("button", { type: "button", class: "frames", "aria-label": label, "aria-pressed": "false", title: "Enlarge", onclick: () => {
    box.setAttribute("aria-pressed", String(box.classList.toggle("large")));
  } });
  frames.forEach((source) => box.append(element("img", { src: source, alt: "", decoding: "async" })));
  return box;
}

// A paragraph of seven lines, and a button where there is more.
function clamped(text, name, words = "") {
  const paragraph = element("p", { class: name }, ...highlighted(text || "(empty)", words));
  if (text.length < 420 && text.split("\n").length <= 7) return [paragraph];
  paragraph.classList.add("clamped");
  const button = element("button", { type: "button", class: "plain", text: "Show all", "aria-expanded": "false", onclick: () => {
    const isClamped = paragraph.classList.toggle("clamped");
    button.textContent = isClamped ? "Show all" : "Show less";
    button.setAttribute("aria-expanded", String(!isClamped));
  } });
  return [paragraph, button];
}

// The text, with what was searched for marked; `words` is in lower case.
function highlighted(text, words) {
  if (!words) return [text];
  const parts = [];
  const lower = text.toLowerCase();
  let from = 0;
  for (let at = lower.indexOf(words); at >= 0 && lower.length === text.length; at = lower.indexOf(words, from)) {
    parts.push(text.slice(from, at), element("mark", { text: text.slice(at, at + words.length) }));
    from = at + words.length;
  }
  return [...parts, text.slice(from)];
}

// A labelled select; `change` gets the value that was chosen.
function choice(name, label, options, value, change) {
  const select = element("select", { name, onchange: () => change(select.value) },
    ...options.map(([each, text]) => element("option", { value: each, text, selected: each === value })));
  return element("label", { text: label }, select);
}

// The buttons between pages; `go` gets the number of the page to show.
function pager(page, pages, go) {
  if (pages < 2) return [];
  return [
    element("button", { type: "button", text: "Previous", disabled: page === 0, onclick: () => go(page - 1) }),
    element("span", { text: `${page + 1} of ${pages}` }),
    element("button", { type: "button", text: "Next", disabled: page === pages - 1, onclick: () => go(page + 1) }),
  ];
}
