const GROUPS_PER_PAGE = 10;
const COMPLETIONS_SHOWN = 4;
const COLORS = 8;

function shape(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// ---- numbers ---------------------------------------------------------------------------------

// Round numbers that enclose [low, high]: about four intervals of 1, 2, 2.5 or 5 times a power of ten.
function ticks(low, high) {
  if (!(high > low)) { const pad = Math.abs(low) / 2 || 1; low -= pad; high += pad; }
  const raw = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= raw * 0.999);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// ---- charts ----------------------------------------------------------------------------------

// The values of a metric as [step, value], steps without it left out.
function series(name) {
  const values = DATA.metrics[name];
  if (!values) return [];
  return values.map((v, i) => [DATA.steps[i], v]).filter(([, v]) => v !== null && v !== undefined);
}

const allSteps = DATA.steps.length ? [DATA.steps[0], DATA.steps.at(-1)] : [0, 1];

function drawChart(parent, { title, lines, format = short, zero = false, stacked = false, height = 210 }) {
  const figure = element("figure", { class: "chart" }, element("figcaption", { text: title }));
  parent.append(figure);
  if (lines.length > 1 || stacked) figure.append(legend(lines, format));
  const plot = element("div", { class: "plot" });
  const tip = element("div", { class: "tip", hidden: true });
  const summary = lines.map((l) => `${l.label} from ${format(l.points[0][1])} to ${format(l.points.at(-1)[1])}`);
  const svg = shape("svg", { role: "img", tabindex: 0, height, "aria-label": `${title}: ${summary.join("; ")}. Arrow keys read single steps.` });
  plot.append(svg, tip);
  figure.append(plot);
  if (height > 150) figure.append(numbers(lines, format));

  const columns = stacked ? stack(lines) : null;
  const cap = stacked ? outlierCap(columns.map((c) => c.total)) : Infinity;
  if (cap < Infinity) {
    const over = columns.filter((c) => c.total > cap);
    const which = over.slice(0, 3).map((c) => `step ${c.step}: ${format(c.total)}`).join(", ");
    figure.append(element("p", { class: "note", text: `Cut off above ${format(cap)} (${which}${over.length > 3 ? ", …" : ""}).` }));
  }
  const values = stacked ? columns.map((c) => Math.min(c.total, cap)) : lines.flatMap((l) => l.points.map((p) => p[1]));
  const low = zero || stacked ? Math.min(0, ...values) : Math.min(...values);
  const marks = ticks(low, Math.max(...values));
  let position = -1;

  function draw() {
    const width = plot.clientWidth || 400;
    const box = { left: 46, right: width - 10, top: 8, bottom: height - 22 };
    const slot = stacked ? (box.right - box.left) / columns.length : 0;
    const span = Math.max(1, allSteps[1] - allSteps[0]);
    const x = stacked
      ? (i) => box.left + (i + 0.5) * slot
      : (step) => box.left + ((step - allSteps[0]) / span) * (box.right - box.left);
    const y = (v) => box.bottom - ((v - marks[0]) / (marks.at(-1) - marks[0])) * (box.bottom - box.top);
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    for (const mark of marks) {
      svg.append(shape("line", { class: "grid", x1: box.left, x2: box.right, y1: y(mark), y2: y(mark) }));
      svg.append(shape("text", { class: "axis", x: box.left - 7, y: y(mark) + 4, "text-anchor": "end" }, format(mark).replace(".0 %", " %")));
    }
    const xs = stacked ? [0, columns.length - 1] : allSteps;
    xs.forEach((value, i) => {
      const step = stacked ? columns[value].step : value;
      const anchor = i ? "end" : "start";
      if (!i || value !== xs[0]) svg.append(shape("text", { class: "axis", x: i ? box.right : box.left, y: height - 5, "text-anchor": anchor }, `step ${step}`));
    });
    if (stacked) drawColumns(svg, columns, x, y, slot, cap);
    else for (const line of lines) drawLine(svg, line, x, y);
    if (position >= 0) point(x, y, box, width);
  }

  function point(x, y, box, width) {
    const step = stacked ? columns[position].step : stepsOf[position];
    const at = stacked ? x(position) : x(step);
    svg.append(shape("line", { class: "cross", x1: at, x2: at, y1: box.top, y2: box.bottom }));
    tip.replaceChildren(element("div", { class: "note", text: `step ${step}` }));
    for (const line of lines) {
      const value = stacked ? columns[position].parts.get(line) : new Map(line.points).get(step);
      if (value === undefined) continue;
      if (!stacked) svg.append(shape("circle", { class: `dot c${line.color}`, cx: at, cy: y(value), r: 4.5 }));
      tip.append(element("div", { text: line.label }, element("b", { text: format(value) })));
    }
    tip.hidden = false;
    const left = at + 12 + tip.offsetWidth > width ? at - 12 - tip.offsetWidth : at + 12;
    tip.style.left = `${Math.max(0, left)}px`;
  }

  const stepsOf = [...new Set(lines.flatMap((l) => l.points.map((p) => p[0])))].sort((a, b) => a - b);
  const count = stacked ? columns.length : stepsOf.length;
  function move(to) { position = Math.max(0, Math.min(count - 1, to)); draw(); }
  function leave() { position = -1; tip.hidden = true; draw(); }
  svg.addEventListener("pointermove", (event) => {
    const rect = svg.getBoundingClientRect();
    const share = (event.clientX - rect.left - 46) / (rect.width - 56);
    if (stacked) return move(Math.floor(share * count));
    const step = allSteps[0] + share * (allSteps[1] - allSteps[0]);
    const distance = stepsOf.map((s) => Math.abs(s - step));
    move(distance.indexOf(Math.min(...distance)));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    move(position < 0 ? (by > 0 ? 0 : count - 1) : position + by);
  });
  new ResizeObserver(draw).observe(plot);
  draw();
}

function drawLine(svg, line, x, y) {
  const points = line.points.map(([step, v]) => `${x(step).toFixed(1)},${y(v).toFixed(1)}`);
  if (points.length > 1) svg.append(shape("polyline", { class: `line c${line.color}`, points: points.join(" ") }));
  const dots = points.length <= 30 ? line.points : line.points.slice(-1);
  for (const [step, v] of dots) svg.append(shape("circle", { class: `dot c${line.color}`, cx: x(step), cy: y(v), r: 3 }));
}

function drawColumns(svg, columns, x, y, slot, cap) {
  const gap = slot > 6 ? 2 : slot > 3 ? 1 : 0;
  columns.forEach((column, i) => {
    let below = 0;
    for (const [line, value] of column.parts) {
      const top = Math.min(below + value, cap);
      if (top > below) {
        const width = slot - gap;
        svg.append(shape("rect", { class: `fill c${line.color}`, x: x(i) - width / 2, width, y: y(top), height: y(below) - y(top) }));
      }
      below = top;
    }
  });
}

// One column a step, or the mean of a few neighbouring steps where there are many.
function stack(lines) {
  const steps = [...new Set(lines.flatMap((l) => l.points.map((p) => p[0])))].sort((a, b) => a - b);
  const size = Math.ceil(steps.length / 240);
  const lookup = lines.map((l) => new Map(l.points));
  const columns = [];
  for (let i = 0; i < steps.length; i += size) {
    const part = steps.slice(i, i + size);
    const mean = (map) => part.reduce((sum, s) => sum + (map.get(s) ?? 0), 0) / part.length;
    const parts = new Map(lines.map((l, k) => [l, mean(lookup[k])]));
    columns.push({ step: part[0], parts, total: [...parts.values()].reduce((a, b) => a + b, 0) });
  }
  return columns;
}

// Compilation makes single steps many times longer than the rest: where to cut them off.
function outlierCap(totals) {
  const sorted = [...totals].sort((a, b) => a - b);
  const usual = sorted[Math.floor(0.9 * (sorted.length - 1))];
  return sorted.at(-1) > 3 * usual && usual > 0 ? 1.3 * usual : Infinity;
}

function swatch(color) {
  const svg = shape("svg", { width: 10, height: 10, "aria-hidden": "true" });
  svg.append(shape("rect", { class: `fill c${color}`, width: 10, height: 10, rx: 2 }));
  return svg;
}

function legend(lines, format) {
  return element("ul", { class: "legend" }, ...lines.map((line) =>
    element("li", {}, swatch(line.color), `${line.label} `, element("b", { text: format(line.points.at(-1)[1]) }))));
}

// The same figures as a table, made when it is opened.
function numbers(lines, format) {
  const details = element("details", {}, element("summary", { text: "Numbers" }));
  details.addEventListener("toggle", () => {
    if (details.children.length > 1) return;
    const steps = [...new Set(lines.flatMap((l) => l.points.map((p) => p[0])))].sort((a, b) => a - b);
    const maps = lines.map((l) => new Map(l.points));
    const head = element("tr", {}, ...["step", ...lines.map((l) => l.label)].map((t) => element("th", { scope: "col", class: "n", text: t })));
    const rows = steps.map((s) => element("tr", {}, element("td", { class: "n", text: s }),
      ...maps.map((m) => element("td", { class: "n", text: m.has(s) ? format(m.get(s)) : "" }))));
    details.append(element("div", { class: "scroll", tabindex: 0 }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))));
  });
  return details;
}

function lineOf(name, label, color) { return { label, color: color % COLORS, points: series(name) }; }

function drawHeadlines() {
  const parent = byId("charts");
  for (const chart of DATA.charts) {
    const lines = chart.series.map(([name, label], i) => lineOf(name, label, i)).filter((l) => l.points.length);
    if (lines.length) drawChart(parent, { ...chart, lines, format: chart.percent ? percent : short });
  }
  if (!parent.children.length) parent.append(element("p", { class: "note", text: "No metrics yet." }));
}

function drawAll() {
  const parent = byId("all-charts");
  if (parent.children.length) return;
  const areas = Map.groupBy ? Map.groupBy(Object.keys(DATA.metrics), (n) => n.split("/")[0]) : new Map([["all", Object.keys(DATA.metrics)]]);
  for (const [area, names] of areas) {
    const grid = element("div", { class: "charts small" });
    parent.append(element("h3", { text: area }), grid);
    for (const name of names.sort()) {
      const line = lineOf(name, name, 0);
      if (line.points.length) drawChart(grid, { title: `${name}  ${short(line.points.at(-1)[1])}`, lines: [line], height: 120 });
    }
  }
}

// ---- rollouts --------------------------------------------------------------------------------

const COMPLETION = ["text", "score", "status", "extracted", "advantage", "length", "finished", "version", "origin", "place"];
const groups = DATA.groups.map((group) => ({
  ...group,
  prompt: DATA.prompts[group.prompt],
  completions: group.completions.map((values) => Object.fromEntries(COMPLETION.map((name, i) => [name, values[i]]))),
}));

const RESULTS = {
  "": ["any result", () => true],
  right: ["right", (c) => c.score.accuracy >= 0.999],
  partly: ["partly right", (c) => c.score.accuracy > 0.001 && c.score.accuracy < 0.999],
  wrong: ["wrong", (c) => c.score.accuracy <= 0.001],
  cut: ["cut at the length limit", (c) => !c.finished],
  unscored: ["not scored", (c) => c.status !== "ok"],
};
const ORDERS = {
  up: ["first step first", (a, b) => a.step - b.step],
  down: ["last step first", (a, b) => b.step - a.step],
  low: ["lowest reward first", (a, b) => meanReward(a) - meanReward(b)],
  high: ["highest reward first", (a, b) => meanReward(b) - meanReward(a)],
};
const SHOWS = { video: "a video", image: "an image", both: "both", text: "text alone" };
const ORIGINS = { policy: "the policy", offline: "the data (offline)", replay: "an earlier step (replay)" };
const state = { type: "", shows: "", origin: "", split: "", step: "", result: "", order: "up", search: "", page: 0 };

function meanReward(group) {
  return group.completions.reduce((sum, c) => sum + (c.score.overall ?? 0), 0) / group.completions.length;
}

function matching() {
  const words = searched();
  const result = RESULTS[state.result][1];
  const found = [];
  for (const group of groups) {
    if (state.type && group.type !== state.type) continue;
    if (state.shows && group.shows !== state.shows) continue;
    if (state.split && group.split !== state.split) continue;
    if (state.step !== "" && group.step !== Number(state.step)) continue;
    const inPrompt = !words || `${group.prompt}\n${group.id}\n${group.answer}\n${group.media.join("\n")}`.toLowerCase().includes(words);
    const completions = group.completions.filter((c) => result(c) && (!state.origin || c.origin === state.origin) && (inPrompt || c.text.toLowerCase().includes(words)));
    if (completions.length) found.push({ ...group, completions, of: group.completions.length });
  }
  return found.sort(ORDERS[state.order][1]);
}

const searched = () => state.search.toLowerCase().trim();

function pick(name, label, options) {
  return choice(name, label, options, state[name], (value) => { state[name] = value; state.page = 0; show(); });
}

function drawFilters() {
  const distinct = (key) => [...new Set(groups.map((g) => g[key]))];
  const splits = distinct("split");
  const names = { train: "training", eval: "held-out" };
  const form = byId("filters");
  const search = element("input", { type: "search", placeholder: "prompt, answer, completion, clip or id",
    oninput: () => { state.search = search.value; state.page = 0; show(); } });
  form.append(
    element("label", { class: "search", text: "Search" }, search),
    pick("type", "Problem type", [["", "all types"], ...distinct("type").sort().map((t) => [t, t])]),
    pick("result", "Result", Object.entries(RESULTS).map(([value, [text]]) => [value, text])),
    pick("step", "Step", [["", "all steps"], ...distinct("step").sort((a, b) => a - b).map((s) => [String(s), `step ${s}`])]),
    pick("order", "Order", Object.entries(ORDERS).map(([value, [text]]) => [value, text])),
  );
  const named = (names, key, all) => [["", all], ...Object.entries(names).filter(([each]) => key.includes(each))];
  const origins = [...new Set(groups.flatMap((g) => g.completions.map((c) => c.origin)))];
  if (distinct("shows").length > 1) form.append(pick("shows", "The row shows", named(SHOWS, distinct("shows"), "anything")));
  if (origins.length > 1) form.append(pick("origin", "Written by", named(ORIGINS, origins, "anyone")));
  if (splits.length > 1) form.append(pick("split", "Rows", [["", "all rows"], ...splits.map((s) => [s, names[s] ?? s])]));
  form.addEventListener("submit", (event) => event.preventDefault());
}

function show(scroll = false) {
  const found = matching();
  const pages = Math.max(1, Math.ceil(found.length / GROUPS_PER_PAGE));
  state.page = Math.min(state.page, pages - 1);
  const first = state.page * GROUPS_PER_PAGE;
  const total = found.reduce((sum, g) => sum + g.completions.length, 0);
  byId("count").textContent = found.length
    ? `${amount(total, "completion")} of ${amount(found.length, "prompt")}`
    : "Nothing fits these filters.";
  byId("groups").replaceChildren(...found.slice(first, first + GROUPS_PER_PAGE).map(groupCard));
  byId("pages").replaceChildren(...pager(state.page, pages, (page) => { state.page = page; show(true); }));
  if (scroll) byId("rollouts").scrollIntoView();
}

function groupCard(group) {
  const tags = element("p", { class: "tags" }, element("strong", { text: `step ${group.step}` }), element("strong", { text: group.type }));
  if (group.split === "eval") tags.append(element("span", { text: "held-out" }));
  tags.append(element("span", { text: group.id }));
  const asked = element("div", { class: "asked" }, tags);
  const drawn = placed(group, DATA.frames[`${group.split}/${group.id}`]);
  asked.append(...drawn.nodes);
  if (group.media.length) asked.append(element("p", { class: "note" }, ...highlighted(group.media.join(", "), searched())));
  asked.append(...clamped(group.prompt, "text prompt", searched()));
  asked.append(element("p", { class: "answer" }, element("span", { text: "Reference answer: " }), group.answer));
  const list = element("ul", { class: "completions" }, ...group.completions.slice(0, COMPLETIONS_SHOWN).map((c) => completionItem(c, drawn)));
  const rest = group.completions.slice(COMPLETIONS_SHOWN);
  if (rest.length) {
    const more = element("li", {}, element("button", { type: "button", class: "plain", text: `Show ${rest.length} more`,
      onclick: () => more.replaceWith(...rest.map((c) => completionItem(c, drawn))) }));
    list.append(more);
  }
  return element("article", { class: "group", "aria-label": `step ${group.step}, ${group.type}, ${group.id}` }, asked, list);
}

function completionItem(c, drawn) {
  const accuracy = c.score.accuracy;
  const [kind, sign] = accuracy >= 0.999 ? ["good", "✓ right"] : accuracy > 0.001 ? ["middle", `${short(accuracy)} of 1`] : ["bad", "✗ wrong"];
  const marks = element("p", { class: "marks" }, element("span", { class: `pill ${kind}`, text: sign }));
  for (const [name, value] of Object.entries(c.score)) {
    if (name !== "accuracy") marks.append(element("span", { text: `${name} ${short(value)}` }));
  }
  if (c.advantage !== null) marks.append(element("span", { text: `advantage ${c.advantage > 0 ? "+" : ""}${short(c.advantage)}` }));
  marks.append(element("span", { text: `${c.length} tokens` }));
  if (!c.finished) marks.append(element("span", { class: "pill middle", text: "cut" }));
  if (c.origin !== "policy") marks.append(element("span", { class: "pill middle", text: c.origin }));
  if (c.status !== "ok") marks.append(element("span", { class: "pill bad", text: c.status }));
  if (c.extracted && c.extracted.trim() !== c.text.trim()) marks.append(element("span", { text: `read as “${c.extracted}”` }));
  if (c.place) marks.append(drawn.button(c));
  return element("li", {}, marks, ...clamped(c.text, "text", searched()));
}

drawHeadlines();
byId("all").addEventListener("toggle", () => { if (byId("all").open) drawAll(); });
if (groups.length) { drawFilters(); show(); }
