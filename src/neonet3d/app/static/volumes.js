// Volumes with masks in NiiVue, one or two side by side that turn together.
/* global niivue */
import { control, settings } from "./common.js";

const OPTIONS = {
  backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 0.6, crosshairWidthUnit: "mm",
  show3Dcrosshair: false, isRadiologicalConvention: true, logLevel: "error",
};

export class Volumes {
  // names: ids of canvases
  constructor(names) {
    this.views = Object.fromEntries(names.map((name) => [name, new niivue.Niivue(OPTIONS)]));
    this.turn = Promise.resolve();
    control("slices").addEventListener("click", () => this.look("slices"));
    control("turn").addEventListener("click", () => this.look("turn"));
    control("opacity").addEventListener("input", (event) => {
      for (const view of Object.values(this.views)) if (view.volumes.length > 1) view.setOpacity(1, Number(event.target.value));
    });
  }

  async attach() {
    if (this.attached) return;
    this.attached = true;
    for (const [name, view] of Object.entries(this.views)) await view.attachToCanvas(control(name));
    const all = Object.values(this.views);
    for (const view of all) view.broadcastTo(all.filter((other) => other !== view), { "2d": true, "3d": true });
  }

  // The image, then its mask, then what else lies over it: {url, colormap, ...} each. Calls wait for each other,
  // and everything is loaded before anything is swapped, so that no mask lies on another's image.
  show(name, image, mask, over = []) {
    const shown = this.turn.then(() => this.swap(name, image, mask, over));
    this.turn = shown.catch(() => {});
    return shown;
  }

  async swap(name, image, mask, over) {
    await this.attach();
    const view = this.views[name], { labels, steps } = settings();
    const load = (one) => niivue.NVImage.loadFromUrl(one);
    const loaded = [
      await load({ url: image, colormap: "gray", cal_min: 0, cal_max: steps }),
      await load({ url: mask, opacity: Number(control("opacity").value) }),
    ];
    loaded[1].setColormapLabel(labels);
    for (const one of over) loaded.push(await load(one));
    while (view.volumes.length) view.removeVolumeByIndex(0);
    for (const one of loaded) view.addVolume(one);
  }

  // Both crosshairs to a place in mm.
  go(place_mm) {
    for (const view of Object.values(this.views)) {
      view.scene.crosshairPos = view.mm2frac(place_mm);
      view.drawScene();
    }
  }

  look(kind) {
    control("turn").setAttribute("aria-pressed", kind === "turn");
    control("slices").setAttribute("aria-pressed", kind === "slices");
    for (const view of Object.values(this.views)) {
      view.setSliceType(kind === "turn" ? view.sliceTypeRender : view.sliceTypeMultiplanar);
    }
  }
}
