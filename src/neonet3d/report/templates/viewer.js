"use strict";
(async () => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const cases = read("volumes"), labels = read("labels");
  const control = (id) => document.getElementById(id);
  const options = {
    backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 1, crosshairWidthUnit: "voxels",
    show3Dcrosshair: false, isRadiologicalConvention: true, logLevel: "error",
  };
  const views = { real: new niivue.Niivue(options), synthetic: new niivue.Niivue(options) };

  // Calls wait for each other, and all is loaded before anything is swapped: no mask lies on another case's image.
  let turn = Promise.resolve();
  function show(number) {
    const done = turn.then(() => swap(number));
    turn = done.catch(() => {});
    return done;
  }

  async function swap(number) {
    const loaded = {};
    for (const name of Object.keys(views)) {
      const image = await niivue.NVImage.loadFromBase64({
        base64: cases[number][name], name: name + ".nii.gz", colormap: "gray", cal_min: 0, cal_max: 4000,
      });
      const mask = await niivue.NVImage.loadFromBase64({
        base64: cases[number].mask, name: "mask.nii.gz", opacity: Number(control("opacity").value),
      });
      mask.setColormapLabel(labels);
      loaded[name] = [image, mask];
    }
    for (const [name, view] of Object.entries(views)) {
      while (view.volumes.length) view.removeVolumeByIndex(0);
      for (const one of loaded[name]) view.addVolume(one);
    }
    document.body.dataset.shown = number;
  }

  function look(kind) {
    control("turn").setAttribute("aria-pressed", kind === "turn");
    control("slices").setAttribute("aria-pressed", kind === "slices");
    for (const view of Object.values(views)) {
      view.setSliceType(kind === "turn" ? view.sliceTypeRender : view.sliceTypeMultiplanar);
    }
  }

  function say(error) {
    const problem = control("problem");
    problem.textContent = "The volumes cannot be drawn here (" + error.message + "). " +
      "A browser with WebGL 2 can; report.html has slices of the same cases.";
    problem.hidden = false;
  }

  try {
    for (const [name, view] of Object.entries(views)) await view.attachToCanvas(control(name));
    views.real.broadcastTo([views.synthetic], { "2d": true, "3d": true });
    views.synthetic.broadcastTo([views.real], { "2d": true, "3d": true });
    control("case").addEventListener("change", (event) => show(Number(event.target.value)).catch(say));
    control("turn").addEventListener("click", () => look("turn"));
    control("slices").addEventListener("click", () => look("slices"));
    control("opacity").addEventListener("input", (event) => {
      for (const view of Object.values(views)) view.setOpacity(1, Number(event.target.value));
    });
    await show(0);
    look("turn");
  } catch (error) {
    say(error);
  }
})();
