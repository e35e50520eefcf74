#!/usr/bin/env bash
# Real data from import to figures, as Markdown; WORK_FOLDER must be new.
#   NEONET3D_DATA=/where/the/data/is [NOTE="Times hold other work."] \
#       bench/real_data.sh WORK_FOLDER > docs/real-data.md
set -euo pipefail
data=${NEONET3D_DATA:-$(cd "$(dirname "$0")/../.." && pwd)/shared/data}
neonet3d=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/neonet3d
commit=$(git -C "$(dirname "$0")" describe --always --dirty)
bf16=$(grep -q avx512_bf16 /proc/cpuinfo && echo " with AVX-512 bf16" || true)
python=$(dirname "$neonet3d")/python
picture=$(cd "$(dirname "$0")" && pwd)/pairs_picture.py
mkdir -p "$1" && cd "$1"

run() {
    local started=$SECONDS
    echo "    \$ neonet3d ${*//$data/\$NEONET3D_DATA}"
    "$neonet3d" "$@" 2>"progress-$1-$2.txt" | sed 's/^/    /'
    echo "    ($((SECONDS - started)) s)"
    echo
}

cat <<EOF
# Real data, from import to figures

Printed by \`bench/real_data.sh\` on $(date -u +%F) at commit $commit, $(nproc) CPU cores$bf16, preset
\`cpu\`. The data are public: Task04_Hippocampus of the Medical Segmentation Decathlon (T1 MR crops,
masks of two parts) and VesselMNIST3D of MedMNIST v2 (binary vessel segments, 11 % aneurysms, official
split). \`NEONET3D_DATA\` is the folder that holds them. ${NOTE:-}

## Hippocampus: image and mask pairs for masks that the generator has not seen

Fold 0 of 5: 128 cases train the segmenter and the generator, the other 32 give the masks to draw
on and the images to compare with. \`sample\` writes pairs, \`evaluate\` compares them with the real
images of those 32: KID and FID beside what two halves of the real images score against each other,
and how well the segmenter (trained on real cases only) finds the mask in the image.

EOF
run cohort import "$data/Task04_Hippocampus" hippocampus
run cohort check hippocampus
run segment train hippocampus hippocampus-segmenter --fold 0/5
run segment predict hippocampus-segmenter hippocampus hippocampus-masks --fold 0/5
run generate train hippocampus hippocampus-generator --fold 0/5
run generate sample hippocampus-generator hippocampus-synthetic --masks hippocampus --fold 0/5
run generate evaluate hippocampus hippocampus-synthetic --segmenter hippocampus-segmenter --fold 0/5

"$python" "$picture" hippocampus hippocampus-synthetic hippocampus.png
cat <<EOF
![Real hippocampi (rows 1 and 3) and synthetic ones on the same, unseen masks (rows 2 and 4)](images/hippocampus.png)

*Axial and sagittal middle slices of the first ten held-out cases: real above, synthetic below
(\`bench/pairs_picture.py\`).*

## Vessels: PattenNet on an official split

Training and validation cases train (the split stands in participants.tsv); the test cases are
predicted once. One test AUC of 43 positives is uncertain by several points; published values lie
between .874 (ResNet-18) and .966.

EOF
run cohort import "$data/medmnist3d/vesselmnist3d.npz" vessels
run classify train vessels vessels-model --set classifier.features=maps --set 'classifier.readings=[deep]' --json
