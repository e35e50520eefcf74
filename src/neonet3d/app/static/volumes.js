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
    control("slices").addEventListener("click", () => this.look("slices"));
    control("turn").addEventListener("click", () => this.look("turn"));
    control("opacity").addEventListener("input", (event) => {
      for (const view of Object.values(this.views)) view.setOpacity(1, Number(event.target.value));
    });
  }

  async attach() {
    if (this.attached) return;
    this.attached = true;
    for (const [name, view] of Object.entries(this.views)) await view.attachToCanvas(control(name));
    const all = Object.values(this.views);
    for (const view of all) view.broadcastTo(all.filter((other) => other !== view), { "2d": true, "3d": true });
  }

  // The image, then its mask, then what else lies over it: {url, colormap, ...} each.
  async show(name, image, mask, over = []) {
    await this.attach();
    const view = this.views[name], { labels, steps } = settings();
    while (view.volumes.length) view.removeVolumeByIndex(0);
    const load = (one) => niivue.NVImage.loadFromUrl(one);
    view.addVolume(await load({ url: image, colormap: "gray", cal_min: 0, cal_max: steps }));
    const drawn = await load({ url: mask, opacity: Number(control("opacity").value) });
    drawn.setColormapLabel(labels);
    view.addVolume(drawn);
    for (const one of over) view.addVolume(await load(one));
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
