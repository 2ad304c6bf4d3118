// A served page loads itself again when the run has written something; filters stay as they are.

const POLL_MS = 3000;
const KEPT_STATE = "evr1-report";

const following = element("input", { type: "checkbox", checked: true });
const told = element("span", { role: "status", text: "following the run" });
document.querySelector("header").append(element("p", { class: "note live" },
  element("label", {}, following, " update by itself"), " · ", told));

function restore() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT_STATE) ?? "null");
  if (!kept || !groups.length) return;
  Object.assign(state, kept);
  byId("filters").replaceChildren();
  drawFilters();
  byId("filters").querySelector("input").value = state.search;
  show();
}

async function follow() {
  try {
    const now = await (await fetch("/state", { cache: "no-store" })).text();
    const isBusy = ["INPUT", "SELECT"].includes(document.activeElement?.tagName) && document.activeElement !== following;
    told.textContent = now === DATA.live ? "following the run" : "there is something new";
    if (now !== DATA.live && following.checked && !isBusy && !document.hidden) {
      sessionStorage.setItem(KEPT_STATE, JSON.stringify(state));
      location.reload();
      return;
    }
  } catch {
    told.textContent = "the server has ended; this is the last page";
  }
  setTimeout(follow, POLL_MS);
}

restore();
setTimeout(follow, POLL_MS);
