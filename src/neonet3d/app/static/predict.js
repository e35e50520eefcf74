import { ask, cancel, complain, control, fileOf, follow, remember, remembered, trying } from "./common.js";
import { Volumes } from "./volumes.js";

const TITLES = {
  "": "nothing", attention: "attention", occlusion: "what speaks for it (occlusion)",
  counterfactual: "what the generator thinks the outcome changes",
};
const CAPTIONS = {
  "": "The scan, NeoSeg’s mask and the region that the classifier reads.",
  attention: "Attention of the deep reading: the brighter, the more of its pooling a place has.",
  occlusion: "Occlusion: warm where replacing a cube by plain liver lowers the probability, cold where it raises it.",
  counterfactual: "Counterfactual: the patch drawn with the outcome less without it; warm where that is brighter.",
};
const STATES = { waiting: "Waiting", running: "Working", cancelled: "Cancelled", failed: "Stopped", done: "Done" };
let volumes = null, running = "";

function told(job) {
  control("job").hidden = job.state === "done";
  control("cancel").hidden = job.state !== "running" && job.state !== "waiting";
  const stage = job.stages.at(-1), doing = STATES[job.state] + (stage && job.state === "running" ? `: ${stage.name}` : "");
  if (control("doing").textContent !== doing) control("doing").textContent = doing;  // read aloud when it changes
  control("stages").replaceChildren(...job.stages.map((stage) => {
    const item = document.createElement("li"), time = document.createElement("span");
    time.className = "num";
    time.textContent = ` ${stage.seconds.toFixed(1)} s`;
    item.append(stage.name, time);
    return item;
  }));
}

// Never rounded to certainty.
function percent(share) {
  return share > 0.99 ? "more than 99 %" : share < 0.01 ? "less than 1 %" : Math.round(100 * share) + " %";
}

function say(result) {
  const { prediction: of, volumes_ml: sizes } = result;
  control("whose").textContent = result.name;
  control("sentence").textContent = of
    ? `Probability of ${of.outcome.replaceAll("_", " ")}: ${percent(of.probability)}, ${percent(of.low)} to ${percent(of.high)}.`
    : "NeoSeg found no tumour in this scan, so there is nothing to classify.";
  control("certainty").textContent = !of ? "" : [
    of.unfamiliar ? "THE SCAN IS UNLIKE THOSE OF TRAINING; no figure of it is to be trusted." : "The scan is like those of training.",
    of.may_be.length === 2 ? "Its 90 % set holds both outcomes: the scan does not decide between them."
      : of.may_be.length === 1 ? `Its 90 % set holds ${of.may_be[0]} alone.` : "Its 90 % set is empty: it is unlike either class.",
    `The interval says how far ${of.training_cases} other training cases would have moved it; the probability holds where a share of ${percent(of.prevalence)} have the outcome.`,
  ].join(" ");
  control("volumes").replaceChildren(...Object.entries(sizes).map(([name, ml]) => {
    const box = document.createElement("div"), term = document.createElement("dt"), value = document.createElement("dd");
    term.textContent = name.replaceAll("_", " ");
    value.append(Object.assign(document.createElement("b"), { textContent: ml.toFixed(ml < 10 ? 1 : 0) + " ml" }));
    box.append(term, value);
    return box;
  }));
  control("found").hidden = false;
}

async function look(number, result) {
  control("looked").hidden = false;
  control("download").href = fileOf(number, "mask.nii.gz");
  control("map").replaceChildren(...["", ...result.maps].map((name) => new Option(TITLES[name], name)));
  volumes ??= new Volumes(["scan"]);
  const draw = async () => {
    if (number !== remembered()) return;
    const chosen = control("map").value, over = [];
    if (control("roi").checked) over.push({ url: fileOf(number, "roi.nii.gz"), colormap: "gray", cal_min: 0, cal_max: 1, opacity: 0.8 });
    if (chosen) {
      over.push({
        url: fileOf(number, chosen + ".nii.gz"), colormap: "warm", colormapNegative: chosen === "attention" ? "" : "winter",
        cal_min: 15, cal_max: 100, opacity: 0.7,
      });
    }
    control("caption").textContent = CAPTIONS[chosen];
    await volumes.show("scan", fileOf(number, "scan.nii.gz"), fileOf(number, "mask.nii.gz"), over);
    if (number === remembered() && chosen === control("map").value) document.body.dataset.shown = chosen || "scan";
  };
  control("map").onchange = control("roi").onchange = trying(draw);
  await draw();
  if (number !== remembered()) return;
  volumes.look("slices");
  volumes.go(result.centre_mm);
}

const watch = trying(async (number) => {
  running = number;
  remember(number);
  control("found").hidden = control("looked").hidden = true;
  delete document.body.dataset.shown;
  const result = await follow(number, told);
  if (result === null) return;
  say(result);
  await look(number, result);
});

const send = trying(async (files) => {
  if (!files.length) return;
  if (files.length > 1) throw new Error("Several files came. Send one scan at a time; put a DICOM series into a zip.");
  if (running) await cancel(running).catch(() => {});  // of the scan before, whose result would come too late
  control("job").hidden = false;
  control("cancel").hidden = true;
  control("doing").textContent = "Sending";
  control("stages").replaceChildren();
  control("found").hidden = control("looked").hidden = true;
  try {
    const job = await ask("api/predict?name=" + encodeURIComponent(files[0].name), files[0], "application/octet-stream");
    await watch(job.id);
  } catch (error) {
    control("job").hidden = true;
    throw error;
  }
});

control("file").addEventListener("change", (event) => {
  send([...event.target.files]);
  event.target.value = "";  // so that the same file can be chosen again
});
control("cancel").addEventListener("click", trying(() => cancel(running)));
const drop = control("drop");
for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") send([...event.dataTransfer.files]);
  });
}
complain(null);
if (remembered()) watch(remembered());
