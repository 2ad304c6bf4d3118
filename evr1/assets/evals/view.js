const SAMPLES_PER_PAGE = 10;
const RESPONSES_SHOWN = 4;
const FIELDS_SHOWN = 12;
const WAIT_MS = 200; // for the next key of a search
const STATUSES = ["ok", "truncated", "error"];
// What rules have read where it is no text of the response.
const NO_TEXT = new Map([["", "nothing read"], ["[]", "nothing read"], ["<RANDOM>", "draws an option"], ["<JUDGE>", "asks a judge"]]);

const { samples, tasks } = DATA;
const profiles = [...new Set(tasks.flatMap((task) => task.profiles))];
const state = { task: "", profile: profiles[0], result: "", status: "", tag: "", flip: "", order: "", search: "", page: 0 };
const searched = () => state.search.toLowerCase().trim();

// ---- tables ----------------------------------------------------------------------------------

function drawToggles() {
  const more = [...document.querySelectorAll(".more")];
  for (const button of document.querySelectorAll(".all-profiles")) {
    button.hidden = more.length === 0;
    button.addEventListener("click", () => {
      const isOpen = button.getAttribute("aria-pressed") !== "true";
      for (const cell of more) cell.hidden = !isOpen;
      for (const each of document.querySelectorAll(".all-profiles")) {
        each.setAttribute("aria-pressed", String(isOpen));
        each.textContent = isOpen ? "Show two profiles" : "Show all profiles and their spread";
      }
    });
  }
}

// ---- filters ---------------------------------------------------------------------------------

function change(name) {
  return (value) => {
    state[name] = value;
    state.page = 0;
    if (name === "task") { state.tag = ""; drawFilters(); byId("filters").elements.task.focus(); }
    show();
  };
}

function pick(name, label, options) {
  return choice(name, label, options, state[name], change(name));
}

const labelled = (table) => Object.entries(table).map(([value, [label]]) => [value, label]);
const counted = (label, n) => `${label} (${n.toLocaleString("en")})`;

function tagChoice(among) {
  const select = element("select", { name: "tag", onchange: () => change("tag")(select.value) },
    element("option", { value: "", text: "all tags" }));
  let group = null;
  for (const [tag, label, n] of countTags(among)) {
    if (group?.getAttribute("label") !== tag) { group = element("optgroup", { label: tag }); select.append(group); }
    const value = JSON.stringify([tag, label]);
    group.append(element("option", { value, text: counted(label, n), selected: value === state.tag }));
  }
  return element("label", { text: "Tag" }, select);
}

function searchBox() {
  let timer = 0;
  const box = element("input", { type: "search", value: state.search, placeholder: "id, question, response, row or file",
    oninput: () => { clearTimeout(timer); timer = setTimeout(() => change("search")(box.value), WAIT_MS); } });
  return element("label", { class: "search", text: "Search" }, box);
}

function drawFilters() {
  const among = state.task === "" ? samples : samples.filter((sample) => sample.task === Number(state.task));
  const statuses = STATUSES.map((status) => [status, among.filter((sample) => sample.status === status).length]);
  byId("filters").replaceChildren(
    searchBox(),
    ...(tasks.length > 1 ? [pick("task", "Task", [["", "all tasks"], ...tasks.map((task, i) => [String(i), task.name])])] : []),
    pick("profile", "By the rule of", profiles.map((name) => [name, name])),
    pick("result", "Result", labelled(RESULTS)),
    pick("status", "Status", [["", "any status"], ...statuses.map(([status, n]) => [status, counted(status, n)])]),
    tagChoice(among),
    ...(DATA.compared ? [pick("flip", "Compared with the other run", labelled(FLIPS))] : []),
    pick("order", "Order", labelled(ORDERS)),
  );
}

function show(scroll = false) {
  const found = select(samples, tasks, state);
  const pages = Math.max(1, Math.ceil(found.length / SAMPLES_PER_PAGE));
  state.page = Math.min(state.page, pages - 1);
  const first = state.page * SAMPLES_PER_PAGE;
  byId("count").textContent = found.length
    ? `${found.length.toLocaleString("en")} of ${samples.length.toLocaleString("en")} samples`
    : "No sample fits these filters.";
  byId("samples").replaceChildren(...found.slice(first, first + SAMPLES_PER_PAGE).map((place) => card(samples[place])));
  byId("pages").replaceChildren(...pager(state.page, pages, (page) => { state.page = page; show(true); }));
  if (scroll) byId("browser").scrollIntoView();
}

// ---- a sample --------------------------------------------------------------------------------

function card(sample) {
  const task = tasks[sample.task];
  return element("article", { class: "group", "aria-label": `${task.name}, ${sample.id}` }, asked(sample, task), answered(sample, task));
}

function asked(sample, task) {
  const kind = { ok: "", truncated: "middle", error: "bad" }[sample.status];
  const box = element("div", { class: "asked" },
    element("p", { class: "tags" }, element("strong", { text: task.name }), element("strong", { text: sample.id }),
      element("span", { class: `pill ${kind}`, text: sample.status })));
  sample.media.forEach((medium, i) => box.append(...shownMedium(medium, DATA.shown[sample.shown[i]], DATA.pictures[sample.pictures?.[i]])));
  if (sample.subtitles) box.append(element("p", { class: "note", text: `subtitles ${sample.subtitles}` }));
  box.append(element("p", { class: "label", text: `Prompt ${task.prompt}, preset ${task.preset}` }),
    ...clamped(sample.prompt || "(the text of this prompt is not known)", "text prompt", searched()));
  const tags = Object.entries(sample.tags).map(([tag, labels]) => [tag, labels.join(", ")]);
  if (tags.length) box.append(element("p", { class: "label", text: "Tags" }), fields(tags));
  box.append(element("p", { class: "label", text: "Row" }), fields(sample.doc));
  return box;
}

function shownMedium([path, kind, start, end], shown, pictures) {
  const words = [path];
  if (start !== null || end !== null) words.push(`clip ${start ?? 0} to ${end === null ? "its end" : `${end} s`}`);
  const nodes = [];
  if (pictures) nodes.push(pictureStrip(pictures));
  if (shown) {
    const [height, width] = shown.size;
    const times = shown.times;
    words.push(`${shown.n} frames of ${width} × ${height} pixels`, `${shown.tokens.toLocaleString("en")} tokens`);
    if (kind === "video" && times.length) words.push(`${times[0]} to ${times.at(-1)} s`);
  }
  nodes.push(element("p", { class: "note" }, ...highlighted(words.join(", "), searched())));
  if (shown && shown.times.length > 1) {
    const some = shown.times.length < shown.n ? `${shown.times.length} of ${shown.n} times` : `${shown.n} times`;
    nodes.push(element("details", { class: "times" }, element("summary", { text: `${some}, in seconds` }),
      element("p", { class: "note", text: shown.times.join(", ") })));
  }
  return nodes;
}

function pictureStrip(pictures) {
  const box = strip(pictures.map(([source]) => source));
  const times = pictures.map(([, time]) => time).filter((time) => time !== null);
  if (!times.length) return box;
  [...box.children].forEach((image, i) => { image.setAttribute("title", `${times[i].toFixed(2)} s`); });
  return element("div", {}, box, element("p", { class: "note", text: `at ${times.map((time) => time.toFixed(1)).join(", ")} s` }));
}

function fields(pairs) {
  const line = ([name, text]) => element("div", {}, element("dt", { text: name }), element("dd", {}, ...clamped(text, "text", searched())));
  const list = element("dl", { class: "fields" }, ...pairs.slice(0, FIELDS_SHOWN).map(line));
  const rest = pairs.slice(FIELDS_SHOWN);
  if (rest.length) list.append(moreButton(rest.length, "div", () => rest.map(line)));
  return list;
}

// A button in a node of its own, which what it shows replaces.
function moreButton(n, tag, make) {
  const more = element(tag, {}, element("button", { type: "button", class: "plain", text: `Show ${n} more`,
    onclick: () => more.replaceWith(...make()) }));
  return more;
}

function answered(sample, task) {
  const box = element("div", { class: "answered" });
  if (sample.status === "error") {
    box.append(element("p", { class: "text" }, element("span", { class: "pill bad", text: sample.reason }), " ", ...highlighted(sample.detail, searched())));
  } else {
    box.append(responseList(sample, task));
  }
  const flips = task.profiles.filter((_, i) => sample.flips?.[i] === 1 || sample.flips?.[i] === -1);
  if (sample.other) {
    box.append(element("p", { class: "label", text: `The other run; the score differs by the rules of ${flips.join(", ")}` }));
    if (sample.other.reason) box.append(element("p", { class: "text" }, element("span", { class: "pill bad", text: sample.other.reason })));
    else box.append(responseList(sample.other, task));
  }
  return box;
}

function responseList(answer, task) {
  const line = (_, i) => responseItem(answer, task, i);
  const list = element("ul", { class: "completions" }, ...answer.responses.slice(0, RESPONSES_SHOWN).map(line));
  const rest = answer.responses.length - RESPONSES_SHOWN;
  if (rest > 0) list.append(moreButton(rest, "li", () => answer.responses.slice(RESPONSES_SHOWN).map((_, i) => responseItem(answer, task, i + RESPONSES_SHOWN))));
  return list;
}

function responseItem(answer, task, place) {
  const [text, finish, tokens] = answer.responses[place];
  const marks = element("p", { class: "marks" });
  if (answer.responses.length > 1) marks.append(element("span", { text: `response ${place + 1} of ${answer.responses.length}` }));
  marks.append(element("span", { text: `${tokens.toLocaleString("en")} tokens` }));
  if (finish === "length") marks.append(element("span", { class: "pill middle", text: "cut" }));
  const rows = task.profiles.map((profile, i) => verdictRow(profile, answer.verdicts[i], place));
  return element("li", {}, marks, ...clamped(text, "text", searched()),
    element("table", { class: "verdicts" }, element("tbody", {}, ...rows)));
}

function verdictRow(profile, verdict, place) {
  const row = element("tr", { class: profile === state.profile ? "chosen" : "" }, element("th", { scope: "row", text: profile }));
  if (!verdict.read.length) {
    row.append(element("td", { class: "note", text: verdict.why || "no score" }), element("td"));
    return row;
  }
  const [text, score, differs] = verdict.read[place];
  const read = NO_TEXT.has(text) ? element("td", { class: "note", text: NO_TEXT.get(text) }) : element("td", { class: "read", text });
  if (differs) read.append(element("span", { class: "note", text: ` (differs from the kit: ${differs})` }));
  row.append(read, element("td", {}, scorePill(score)));
  return row;
}

function scorePill(score) {
  if (score === null) return element("span", { class: "pill", text: "left out" });
  if (score >= 0.999) return element("span", { class: "pill good", text: "✓ right" });
  return score > 0.001 ? element("span", { class: "pill middle", text: short(score) }) : element("span", { class: "pill bad", text: "✗ wrong" });
}

drawToggles();
byId("filters").addEventListener("submit", (event) => event.preventDefault());
if (samples.length) { drawFilters(); show(); }
