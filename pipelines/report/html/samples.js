// The browser of sample documents. Crawled text is only ever inserted with textContent.
"use strict";
{
  const at = (id) => document.getElementById(id);
  const list = at("sample-list"), pane = at("sample-text"), fate = at("sample-fate"), domain = at("sample-domain"), find = at("sample-find");
  const why = (s) => (s.step ? `${s.step}: ${s.rule}` : "kept");
  let shown = [];

  const options = (select, values) => { for (const [value, text] of values) select.append(make("option", { value, textContent: text })); };
  const rules = new Map();
  for (const s of data.samples) if (s.step) rules.set(`${s.step}\n${s.rule}`, s);
  options(fate, [["", "kept and dropped"], ["kept", "kept"], ["dropped", "dropped by any rule"],
    ...[...rules].map(([key, s]) => [key, `${why(s)} (${count(s.of)} dropped)`])]);
  options(domain, [["", "all"], ...[...new Set(data.samples.map((s) => s.domain))].sort().map((d) => [d, d || "(none)"])]);

  const fact = (term, value) => (value ? [make("dt", { textContent: term }), make("dd", {}, value)] : []);
  const code = (text) => make("code", { textContent: text });
  const show = (i) => {
    const s = shown[i];
    for (const [k, b] of [...list.children].entries()) k === i ? b.setAttribute("aria-current", "true") : b.removeAttribute("aria-current");
    const title = s.step ? `Dropped by ${s.step}: ${s.rule}` : "Kept";
    pane.replaceChildren(
      make("h3", { textContent: title, className: s.step ? "gone" : "keep" }),
      make("dl", {},
        ...fact("decided by", s.value && code(s.value)), ...fact("rule", s.sql && code(s.sql)), ...fact("evidence", s.evidence && code(s.evidence)),
        ...fact("URL", s.url), ...fact("domain", s.domain), ...fact("source", s.place), ...fact("full history", code(`gristmill explain ${data.run} ${s.id}`))),
      s.text === null ? make("p", { className: "note", textContent: "The text is not stored in the run, and the source cannot be read on this machine." })
        : make("pre", { tabIndex: 0, textContent: s.text || "(no text)" }));
    pane.querySelector("pre")?.setAttribute("aria-label", "text of the document");
  };

  const choose = () => {
    const wanted = find.value.trim().toLowerCase();
    shown = data.samples.filter((s) =>
      (!fate.value || (fate.value === "kept" ? !s.step : fate.value === "dropped" ? s.step : `${s.step}\n${s.rule}` === fate.value))
      && (!domain.value || s.domain === domain.value)
      && (!wanted || [s.text, s.url, s.id, s.value, s.evidence, why(s)].some((t) => t && t.toLowerCase().includes(wanted))));
    at("sample-count").textContent = `${count(shown.length)} of ${count(data.samples.length)} samples`;
    list.replaceChildren(...shown.map((s, i) => {
      const row = make("button", { type: "button" },
        make("span", { className: `why ${s.step ? "gone" : "keep"}`, textContent: why(s) }),
        make("span", { className: "first", textContent: s.text ? s.text.trim().slice(0, 90) : s.url || s.id }));
      row.addEventListener("click", () => show(i));
      return row;
    }));
    list.scrollTop = 0;
    if (shown.length) show(0);
    else pane.replaceChildren(make("p", { className: "note", textContent: "No sample matches. Remove a filter." }));
  };
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const next = step && document.activeElement.parentElement === list
      && document.activeElement[step > 0 ? "nextElementSibling" : "previousElementSibling"];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.click();
  });
  for (const field of [fate, domain]) field.addEventListener("change", choose);
  find.addEventListener("input", choose);
  at("sample-browser").hidden = false;
  choose();
}
