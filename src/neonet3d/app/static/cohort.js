import { ask, cells, control, follow, remember, remembered, trying } from "./common.js";

const check = trying(async (number) => {
  remember(number);
  control("check").disabled = true;
  try {
    const found = await follow(number, (job) => {
      const doing = job.stages.at(-1)?.name ?? "waiting";
      if (control("progress").textContent !== doing) control("progress").textContent = doing;
    });
    if (found !== null) show(found.findings);
  } finally {
    control("check").disabled = false;
  }
});

function show(findings) {
  control("progress").textContent = findings.length ? `${findings.length} findings.` : "Nothing is wrong.";
  const table = control("findings").querySelector("tbody");
  table.replaceChildren();
  for (const one of findings) {
    cells(table.insertRow(), [one.case ?? "all", one.severity, one.problem + ".", one.mend]);
  }
  control("findings").hidden = !findings.length;
  document.body.dataset.checked = findings.length;
}

control("check").addEventListener("click", trying(async () => check((await ask("api/cohort/check", "")).id)));
if (remembered()) check(remembered());
