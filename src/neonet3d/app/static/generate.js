import { ask, cancel, control, fileOf, follow, remember, remembered, settings, trying } from "./common.js";
import { Volumes } from "./volumes.js";

const { colours, labels } = settings();
const TUMOUR = labels.labels.indexOf("tumour"), LIVER = Math.max(0, labels.labels.indexOf("liver"));
const MOST_EDITS = 50;
let edits = [], mask = null, shown = null, grabbed = null, dragged = [0, 0], volumes = null, running = "", turn = Promise.resolve();

// The least that a surface can be moved by.
const voxel = () => Math.min(...mask.spacing_mm);

// One change after the other; one that the app refuses is not made, and its sentence shown. Edits are of the case that
// is shown, whatever has been chosen since.
function change(next) {
  turn = turn.then(trying(async () => {
    const asked = next(edits);
    if (asked.length > MOST_EDITS) throw new Error(`A mask takes ${MOST_EDITS} edits. Undo some, or draw the volume.`);
    await fetchMask(shown, asked);
  }));
  return turn;
}

function choose(number) {
  turn = turn.then(trying(async () => {
    try {
      await fetchMask(number, []);
    } catch (error) {
      if (shown !== null) control("case").value = shown;
      throw error;
    }
  }));
  return turn;
}

// A move right after a move is one move.
const append = (edit) => change((before) => {
  const last = before.at(-1);
  if (edit.kind !== "shift" || last?.kind !== "shift") return [...before, edit];
  return [...before.slice(0, -1), { kind: "shift", by_mm: edit.by_mm.map((mm, axis) => mm + last.by_mm[axis]) }];
});

async function fetchMask(number, asked) {
  const found = await ask("api/mask", JSON.stringify({ case: number, edits: asked }));
  [shown, edits] = [number, asked];
  const bytes = Uint8Array.from(atob(found.labels), (character) => character.charCodeAt(0));
  const fresh = mask === null;
  mask = { ...found, bytes };
  const slider = control("slice");
  slider.max = found.shape[2] - 1;
  const moved = edits.at(-1)?.kind === "shift" && edits.at(-1).by_mm[2] !== 0;
  if (fresh || edits.length === 0 || moved) slider.value = largestSlice();
  control("volume").textContent = found.tumour_ml ? `Tumour ${found.tumour_ml.toFixed(1)} ml` : "No tumour";
  control("remove").disabled = control("grow").disabled = control("shrink").disabled = !found.tumour_ml;
  control("insert").disabled = Boolean(found.tumour_ml);
  control("undo").disabled = edits.length === 0;
  paint();
}

function largestSlice() {
  const [x, y, z] = mask.shape, counts = Array(z).fill(0);
  mask.bytes.forEach((value, at) => { if (value === TUMOUR) counts[Math.floor(at / (x * y))] += 1; });
  const most = Math.max(...counts);
  return most ? counts.indexOf(most) : Math.floor(z / 2);
}

// As radiologists read it: the patient's right on the left, anterior up.
function paint() {
  if (!mask) return;
  const canvas = control("mask"), [x, y] = mask.shape, [sx, sy] = mask.spacing_mm;
  canvas.width = 384;
  canvas.height = Math.round(384 * y * sy / (x * sx));
  const context = canvas.getContext("2d"), at = Number(control("slice").value) * x * y;
  context.imageSmoothingEnabled = false;
  const rest = new ImageData(x, y), held = new ImageData(x, y);
  for (let j = 0; j < y; j++) {
    for (let i = 0; i < x; i++) {
      const value = mask.bytes[at + j * x + i], place = 4 * ((y - 1 - j) * x + (x - 1 - i));
      rest.data.set(rgba(grabbed && value === TUMOUR ? LIVER : value), place);
      if (grabbed && value === TUMOUR) held.data.set(rgba(value), place);
    }
  }
  for (const [pixels, [right, down]] of [[rest, [0, 0]], [held, dragged]]) {
    const small = new OffscreenCanvas(x, y);
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(small, right, down, canvas.width, canvas.height);
  }
}

function rgba(value) {
  return [1, 3, 5].map((at) => parseInt(colours[value].slice(at, at + 2), 16)).concat(255);
}

// Canvas pixels to mm along x and y: +x is the patient's right, which is left on the screen, and +y is anterior, up.
function inMillimetres([right, down]) {
  const canvas = control("mask"), [x, y] = mask.shape, [sx, sy] = mask.spacing_mm;
  return [-right / canvas.width * x * sx, -down / canvas.height * y * sy, 0];
}

const pointer = (event) => {
  const canvas = control("mask"), box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
};

control("mask").addEventListener("pointerdown", (event) => {
  if (!mask?.tumour_ml) return;
  grabbed = pointer(event);
  dragged = [0, 0];
  control("mask").setPointerCapture(event.pointerId);
});
control("mask").addEventListener("pointermove", (event) => {
  if (!grabbed) return;
  dragged = pointer(event).map((value, axis) => value - grabbed[axis]);
  paint();
});
control("mask").addEventListener("pointerup", async () => {
  if (!grabbed) return;
  const by_mm = inMillimetres(dragged);
  grabbed = null;
  paint();
  if (by_mm.some((mm, axis) => Math.abs(mm) >= mask.spacing_mm[axis] / 2)) await append({ kind: "shift", by_mm });
});
control("mask").addEventListener("pointercancel", () => {
  grabbed = null;
  paint();
});
control("mask").addEventListener("keydown", (event) => {
  const step = {
    ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1],
  }[event.key];
  if (!step || !mask?.tumour_ml) return;
  event.preventDefault();
  if (!event.repeat) append({ kind: "shift", by_mm: step.map((n, axis) => n * mask.spacing_mm[axis]) });
});

control("slice").addEventListener("input", paint);
const onMask = (id, edit) => control(id).addEventListener("click", () => { if (mask) edit(); });
control("case").addEventListener("change", () => choose(Number(control("case").value)));
onMask("grow", () => append({ kind: "grow", by_mm: voxel() }));
onMask("shrink", () => append({ kind: "grow", by_mm: -voxel() }));
onMask("remove", () => append({ kind: "remove" }));
onMask("insert", () => append({ kind: "insert", volume_ml: 5, number: Math.floor(Math.random() * 2 ** 31) }));
onMask("undo", () => change((before) => before.slice(0, -1)));
control("cancel").addEventListener("click", trying(() => cancel(running)));

async function look(number, result) {
  control("looked").hidden = false;
  control("download").href = fileOf(number, result.pair);
  control("seen").textContent = result.trained_on_the_mask ? ", on whom the generator was trained" : ", whom the generator never saw";
  volumes ??= new Volumes(["synthetic", "real"]);
  await volumes.show("synthetic", fileOf(number, "synthetic.nii.gz"), fileOf(number, "mask.nii.gz"));
  await volumes.show("real", fileOf(number, "real.nii.gz"), fileOf(number, "real-mask.nii.gz"));
  if (!document.body.dataset.shown) volumes.look("slices");
  document.body.dataset.shown = number;
}

const watch = trying(async (number) => {
  running = number;
  remember(number);
  control("draw").disabled = true;
  control("cancel").hidden = false;
  try {
    const result = await follow(number, (job) => {
      const stage = job.stages.at(-1);
      const doing = job.state === "running" && stage ? stage.name : job.state;
      if (control("doing").textContent !== doing) control("doing").textContent = doing;
    });
    if (result !== null) await look(number, result);
  } finally {
    control("draw").disabled = false;
    control("cancel").hidden = true;
  }
});

control("draw").addEventListener("click", trying(async () => {
  control("draw").disabled = true;
  try {
    await turn;  // edits that are under way
    if (shown === null) throw new Error("There is no mask to draw on. Choose another case.");
    const asked = { case: shown, edits, outcome: Number(control("outcome").value), seed: Number(control("seed").value) };
    await watch((await ask("api/generate", JSON.stringify(asked))).id);
  } finally {
    control("draw").disabled = false;
  }
}));

await choose(Number(control("case").value));
if (remembered()) await watch(remembered());
