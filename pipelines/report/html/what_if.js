// What another threshold would keep. Every position of the slider is a value that some document has, so the counts are
// exact. Documents that come back were never scored by later steps: how many of them stay is an estimate.
"use strict";
{
  const at = (id) => document.getElementById(id);
  const pick = at("what-if-rule"), slider = at("what-if-value"), svg = at("what-if-chart");
  const space = "http://www.w3.org/2000/svg";
  const short = (x) => (Number.isInteger(x) ? String(x) : String(Number(x.toPrecision(4))));
  const shape = (tag, attributes) => { const e = document.createElementNS(space, tag); for (const k in attributes) e.setAttribute(k, attributes[k]); return e; };
  let now = null;

  for (const [i, t] of data.thresholds.entries()) pick.append(make("option", { value: i, textContent: `${t.step}: ${t.signal} ${t.op} ${short(t.value)}  (${t.rule})` }));

  const most = (t) => Math.max(...t.back) - t.back[t.today];
  pick.value = data.thresholds.reduce((best, t, i) => (most(t) > most(data.thresholds[best]) ? i : best), 0);

  const place = (x) => {
    const e = now.edges, low = now.log ? Math.log(e[0]) : e[0], high = now.log ? Math.log(e[e.length - 1]) : e[e.length - 1];
    return 1000 * Math.min(1, Math.max(0, ((now.log ? Math.log(Math.max(x, e[0])) : x) - low) / (high - low)));
  };
  const draw = () => {
    const top = Math.max(1, ...now.bins.map(([k, d]) => k + d)), width = 1000 / now.bins.length;
    svg.replaceChildren(...now.bins.flatMap(([k, d], i) => [
      shape("rect", { class: "d", x: i * width, width: width * 0.92, y: 1000 * (1 - (k + d) / top), height: 1000 * d / top }),
      shape("rect", { class: "k", x: i * width, width: width * 0.92, y: 1000 * (1 - k / top), height: 1000 * k / top })]),
      shape("line", { class: "mark", y1: 0, y2: 1000, x1: place(now.value), x2: place(now.value) }),
      shape("line", { class: "mark at", id: "what-if-mark", y1: 0, y2: 1000 }));
    at("what-if-low").textContent = short(now.edges[0]);
    at("what-if-high").textContent = short(now.edges[now.edges.length - 1]) + (now.log ? ", logarithmic" : "");
  };
  const say = () => {
    const i = Number(slider.value), value = now.stops[i];
    const lost = now.kept[now.today] - now.kept[i], back = now.back[i] - now.back[now.today];
    const tokens = now.tokens[now.today] - now.tokens[i], kept = data.kept;
    const mark = at("what-if-mark");
    mark.setAttribute("x1", place(value));
    mark.setAttribute("x2", place(value));
    const bold = (n) => make("b", { textContent: n });
    const says = i === now.today ? ["Now: ", bold(count(kept)), " documents kept."]
      : lost > 0 ? [bold(count(kept - lost)), ` documents would be kept, ${count(lost)} fewer than the ${count(kept)} kept now`, tokens ? ` (${count(tokens)} tokens).` : "."]
      : back > 0 ? ["About ", bold(count(kept + back * now.stay)), ` documents would be kept: the ${count(kept)} kept now and about ${count(back * now.stay)} of the ${count(back)} that would now pass this rule (${Math.round(100 * now.stay)} % of the documents that pass it are kept).`]
      : [bold(count(kept)), " documents would be kept: no change."];
    at("what-if-answer").replaceChildren(...says);
    slider.setAttribute("aria-valuetext", `${now.signal} ${now.op} ${short(value)}`);
    at("what-if-shown").textContent = `${now.signal} ${now.op} ${short(value)}`;
    at("what-if-command").textContent = `gristmill what-if ${data.run} --set '${now.step}.${now.rule}=${now.template.replace("{}", String(value)).replaceAll("'", "'\\''")}'`;
  };
  const choose = () => {
    now = data.thresholds[Number(pick.value)];
    slider.max = now.stops.length - 1;
    slider.value = now.today;
    draw();
    say();
  };
  pick.addEventListener("change", choose);
  slider.addEventListener("input", say);
  at("what-if-back").addEventListener("click", () => { slider.value = now.today; say(); });
  at("what-if-tool").hidden = false;
  choose();
}
