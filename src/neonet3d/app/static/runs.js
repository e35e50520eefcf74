import { ask, cells, control, trying } from "./common.js";

const EVERY_MS = 2000;
const opened = new Set();

function shown(run) {
  const made = control("run").content.cloneNode(true);
  const seconds = run.stages.reduce((sum, [, of]) => sum + of, 0);
  made.querySelector("h2").textContent = run.name;
  made.querySelector(".state").textContent =
    `${run.state}, last started ${run.started.replace("T", " ").slice(0, 16)} UTC: ${run.command}`;
  for (const page of run.pages) {
    const link = document.createElement("a");
    link.href = `runs/${encodeURIComponent(run.name)}/${encodeURIComponent(page)}`;
    link.textContent = page.replace(".html", "");
    made.querySelector(".pages").append(link, " ");
  }
  const details = made.querySelector("details");
  details.open = opened.has(run.name);
  details.addEventListener("toggle", () => details.open ? opened.add(run.name) : opened.delete(run.name));
  details.querySelector("summary").textContent = `${run.stages.length} stages in ${Math.round(seconds)} s`;
  for (const [stage, of] of run.stages) {
    const row = cells(details.querySelector("tbody").insertRow(), [stage, of.toFixed(1)]);
    row.cells[1].className = "num";
  }
  const section = made.firstElementChild;
  section.dataset.state = run.state;
  section.dataset.name = run.name;
  return section;
}

const last = new Map();
const look = trying(async () => {
  const runs = await ask("api/runs");
  const places = new Map([...control("runs").children].map((section) => [section.dataset.name, section]));
  const sections = runs.map((run) => {
    const now = JSON.stringify(run), place = places.get(run.name);
    if (place && last.get(run.name) === now) return place;  // what has not changed keeps the focus
    last.set(run.name, now);
    return shown(run);
  });
  if (sections.some((section, at) => control("runs").children[at] !== section) || sections.length !== places.size) {
    control("runs").replaceChildren(...sections);
  }
});

await look();
setInterval(look, EVERY_MS);
