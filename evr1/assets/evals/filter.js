// Which samples are shown, and in which order: functions of plain values, which need no page.

const UNREAD = new Set(["", "[]", "<RANDOM>"]);

// What a profile made of a sample; null where the task has no such profile.
function verdictOf(sample, tasks, profile) {
  const place = tasks[sample.task].profiles.indexOf(profile);
  return place < 0 ? null : sample.verdicts[place];
}

const isDisputed = (sample) => new Set(sample.verdicts.map((v) => v.score).filter((s) => s !== null)).size > 1;

// value -> [label, test of (verdict, sample)]
const RESULTS = {
  "": ["any result", () => true],
  right: ["right", (v) => v !== null && v.score !== null && v.score >= 0.999],
  partly: ["partly right", (v) => v !== null && v.score !== null && v.score > 0.001 && v.score < 0.999],
  wrong: ["wrong", (v) => v !== null && v.score !== null && v.score <= 0.001],
  unread: ["nothing was read", (v) => v !== null && v.read.some(([text]) => UNREAD.has(text))],
  unscored: ["not scored", (v) => v === null || v.score === null],
  disputed: ["profiles disagree", (v, sample) => isDisputed(sample)],
};

// value -> [label, test of what a sample scores more (1), as much (0) or less (-1) than in the other run;
// undefined: the other run lacks it; null: one of both has no score]
const FLIPS = {
  "": ["all", () => true],
  flipped: ["gained or lost", (flip) => flip === 1 || flip === -1],
  gained: ["gained", (flip) => flip === 1],
  lost: ["lost", (flip) => flip === -1],
  same: ["the same", (flip) => flip === 0],
  alone: ["in one run only", (flip) => flip === undefined || flip === null],
};

const most = (number) => (a, b) => number(b) - number(a);
const tokensOf = (sample) => sample.responses.reduce((sum, [, , tokens]) => sum + tokens, 0);

// value -> [label, order of (sample, sample); null: as in the run]
const ORDERS = {
  "": ["as in the run", null],
  tokens: ["most tokens first", most(tokensOf)],
  seconds: ["slowest first", most((sample) => sample.seconds ?? 0)],
};

function haystack(sample) {
  const texts = [sample.id, sample.prompt, sample.detail, ...sample.media.map(([path]) => path),
    ...sample.responses.map(([text]) => text), ...sample.doc.flat()];
  return texts.join("\n").toLowerCase();
}

// The places of the samples that fit the state, in its order.
// state: task (place or ""), profile, result, status, tag (JSON of [tag, label] or ""), flip, order, search
function select(samples, tasks, state) {
  const words = state.search.toLowerCase().trim();
  const task = state.task === "" ? null : Number(state.task);
  const tag = state.tag === "" ? null : JSON.parse(state.tag);
  const isResult = RESULTS[state.result][1];
  const isFlip = FLIPS[state.flip][1];
  const found = [];
  samples.forEach((sample, place) => {
    if (task !== null && sample.task !== task) return;
    if (state.status && sample.status !== state.status) return;
    if (tag && !(Object.hasOwn(sample.tags, tag[0]) && sample.tags[tag[0]].includes(tag[1]))) return;
    if (!isResult(verdictOf(sample, tasks, state.profile), sample)) return;
    if (!isFlip(sample.flips?.[tasks[sample.task].profiles.indexOf(state.profile)])) return;
    if (words && !haystack(sample).includes(words)) return;
    found.push(place);
  });
  const order = ORDERS[state.order][1];
  return order ? found.sort((a, b) => order(samples[a], samples[b])) : found;
}

// [tag, label, number of samples] of some samples, tags and labels in order.
function countTags(samples) {
  const counts = new Map();
  for (const sample of samples) {
    for (const [tag, labels] of Object.entries(sample.tags)) {
      for (const label of labels) {
        const key = JSON.stringify([tag, label]);
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
  }
  return [...counts].map(([key, n]) => [...JSON.parse(key), n])
    .sort(([a, b], [c, d]) => a.localeCompare(c) || b.localeCompare(d, undefined, { numeric: true }));
}
