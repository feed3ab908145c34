// The frame of the page: light and dark mode, the current section in the navigation, the search for signals.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((c) => c !== null));
  return element;
};
const count = (n) => Math.round(n).toLocaleString("en-US");

{
  const button = document.getElementById("theme"), root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} mode`); };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  name();
}

{
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const e of entries) e.isIntersecting ? seen.add(e.target.id) : seen.delete(e.target.id);
    const first = [...links.keys()].find((id) => seen.has(id));
    if (!first) return;
    for (const [id, a] of links) id === first ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current");
  }, { rootMargin: "-10% 0px -70% 0px" });
  for (const id of links.keys()) watch.observe(document.getElementById(id));
}

{
  const box = document.getElementById("find-signal");
  if (box) box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    let shown = 0;
    for (const group of document.querySelectorAll(".signals")) {
      let here = 0;
      for (const figure of group.querySelectorAll("figure")) {
        figure.hidden = !figure.dataset.name.toLowerCase().includes(wanted);
        here += !figure.hidden;
      }
      group.hidden = !here;
      shown += here;
    }
    document.getElementById("found-signals").textContent = wanted ? `${shown} shown` : "";
  });
}
