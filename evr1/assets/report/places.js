// Frames of a prompt with the places of truth and answer on them, and when they are on a time line.

const NEAR_S = 0.51; // a box of a second is drawn on frames this near to it
const seconds = (value) => `${Number(value.toFixed(2))} s`;

// The boxes of a place on the frame at a second (null: an image), each [left, top, right, bottom].
function boxesAt(place, second) {
  if (!place) return [];
  const boxes = [...(place.boxes ?? [])];
  const tube = place.tube ?? [];
  if (second === null) return boxes;
  const distance = (entry) => Math.abs(entry[0] - second);
  const nearest = Math.min(...tube.map(distance));
  if (nearest <= NEAR_S) boxes.push(...tube.filter((entry) => distance(entry) === nearest).map((entry) => entry.slice(1)));
  return boxes;
}

// When a place is, as [from, to]; a second of a tube is a short one.
function timesOf(place) {
  if (!place) return [];
  return [...(place.spans ?? []), ...(place.tube ?? []).map(([second]) => [second - 0.08, second + 0.08])];
}

function drawBoxes(svg, place, kind, second) {
  const inside = (v) => Math.min(1, Math.max(0, v));
  for (const box of boxesAt(place, second)) {
    const [left, top, right, bottom] = box.map(inside);
    svg.append(shape("rect", { class: `place ${kind}`, x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) }));
  }
}

function drawTimeline(svg, truth, place, marks) {
  const all = [...timesOf(truth), ...timesOf(place)];
  const end = Math.max(1, ...marks, ...all.map(([, to]) => to));
  const x = (second) => 4 + (Math.min(Math.max(second, 0), end) / end) * 292;
  svg.replaceChildren();
  svg.append(shape("line", { class: "rail", x1: 4, x2: 296, y1: 24, y2: 24 }));
  for (const mark of marks) svg.append(shape("line", { class: "at", x1: x(mark), x2: x(mark), y1: 21, y2: 27 }));
  for (const [y, kind, each] of [[3, "truth", truth], [12, "answer", place]]) {
    for (const [from, to] of timesOf(each)) svg.append(shape("rect", { class: kind, x: x(from), width: Math.max(1.5, x(to) - x(from)), y, height: 6, rx: 2 }));
  }
  svg.append(shape("text", { x: 4, y: 39 }, "0 s"), shape("text", { x: 296, y: 39, "text-anchor": "end" }, seconds(end)));
  const told = (place) => timesOf(place).slice(0, 8).map(([from, to]) => `${seconds(from)} to ${seconds(to)}`).join(", ") || "nothing";
  svg.setAttribute("aria-label", `Time line. Truth: ${told(truth)}. Answer: ${told(place)}.`);
}

// What stands under the tags of a group, and a button for each completion that draws its places.
function placed(group, pictures) {
  const { truth } = group;
  const found = group.completions.find((c) => c.place);
  const nodes = [];
  const overlays = [];
  const isOne = !pictures || pictures.media === 1;
  const frames = pictures?.frames ?? [];
  if (frames.length) {
    const box = strip(frames.map(([source]) => source));
    [...box.children].forEach((image, i) => {
      const second = frames[i][1];
      const svg = shape("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
      const shot = element("span", { class: "shot" });
      const picture = element("span", { class: "picture" }, shot);
      image.replaceWith(picture);
      shot.append(image, svg);
      if (second !== null) picture.append(seconds(second));
      if (isOne) overlays.push([svg, second]);
    });
    nodes.push(box);
  }
  const hasTimes = isOne && timesOf(truth).length + group.completions.reduce((n, c) => n + timesOf(c.place).length, 0) > 0;
  const line = shape("svg", { class: "timeline", viewBox: "0 0 300 42", role: "img" });
  if (hasTimes) nodes.push(line);
  if (truth || found) nodes.push(element("p", { class: "note" }, element("span", { class: "key" }), "truth  ", element("span", { class: "key answer" }), "answer"));
  const buttons = [];
  const draw = (c) => {
    for (const [svg, second] of overlays) {
      svg.replaceChildren();
      drawBoxes(svg, truth, "truth", second);
      drawBoxes(svg, c?.place, "answer", second);
    }
    const marks = frames.map(([, second]) => second).filter((second) => second !== null);
    if (hasTimes) drawTimeline(line, truth, c?.place, marks);
    for (const [button, each] of buttons) button.setAttribute("aria-pressed", String(each === c));
  };
  const button = (c) => {
    const made = element("button", { type: "button", class: "plain", text: "draw", title: "Draw this answer on the frames and the time line", "aria-pressed": String(c === found), onclick: () => draw(c) });
    buttons.push([made, c]);
    return made;
  };
  draw(found);
  return { nodes, button };
}
