#!/bin/bash
# Photographs in class folders from training to explanation, and what people really have in folders.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"

cat >fashion.yaml <<YAML
name: fashion
data:
  type: idx
  path: $tree/data/samples/fashion_mnist
  limit: 300
  classes: [T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot]
model: {type: vmamba, patch_size: 4, depths: [1, 1], dims: [16, 32], forward_type: v3}
task: {type: classification, label_smoothing: 0.1}
loader: {batch_size: 50}
trainer: {epochs: 1, device: cpu, seed: 1, evaluation_batch: 250}
optimizer: {type: adamw, lr: 0.003, layer_decay: 0.9}
YAML
expect 0 'test +.*accuracy' "$serpentine" train fashion.yaml --out run
expect_file run/data.json run/test.json run/checkpoints/best.safetensors

# evaluate: the same numbers as training ended with, a table of classes, tables and pictures
accuracy=$(sed -n 's/.*"accuracy": \([0-9.]*\).*/\1/p' run/test.json | head -n 1 | cut -c1-7)
expect 0 "\"accuracy\": $accuracy" "$serpentine" evaluate run --json
expect 0 'ankle boot +[-0-9]' "$serpentine" evaluate run
expect_file run/evaluation_test/report.csv run/evaluation_test/confusion.csv run/evaluation_test/mistakes.csv
[ "$(wc -l <run/evaluation_test/report.csv)" = 11 ] || fail "report.csv must have a header and ten rows"

expect 0 '1000 pictures' "$serpentine" predict run --split test --top 3 --out answers
expect_file answers/predictions.csv answers/predictions.json
[ "$(wc -l <answers/predictions.csv)" = 1001 ] || fail "predictions.csv must have 1001 lines"
head -n 1 answers/predictions.csv | grep -q '^path,class_1,probability_1,class_2,probability_2,class_3' || fail "header of predictions.csv"

expect 0 'features' "$serpentine" embed run --layer list
for file in features.npy features.safetensors; do
  expect 0 '\[1000, 32\]' "$serpentine" embed run --split test -o $file
done
expect_file features.npy features.npy.paths.txt features.safetensors
if "$serpentine" doctor | grep -Eq '\+ HDF5'; then
  expect 0 '\[1000, 10\]' "$serpentine" embed run --split test --layer output -o features.h5
fi
refuse 1 "no layer 'nonsense'.*--layer list" "$serpentine" embed run --split test --layer nonsense -o x.npy
refuse 2 '.npy, .h5 or .safetensors' "$serpentine" embed run --split test -o features.txt

expect 0 'images/s' "$serpentine" info run --batch 1 --repeats 3
expect 0 '"selective_scan"' "$serpentine" info run --batch 1 --repeats 3 --json
expect 0 '"training step"' "$serpentine" info run --batch 2 --repeats 3 --train --json
expect 0 'Scan 2' "$serpentine" export run -o model.onnx
expect_file model.onnx

# distillation: weights first, then outputs; a teacher of other pictures is refused
expect 0 'test +.*accuracy' "$serpentine" train fashion.yaml --out student 'task={type: distillation, teacher: run, weight_steps: 2}'
refuse 1 'teacher.*no finished run' "$serpentine" train fashion.yaml --dry-run 'task={type: distillation, teacher: nowhere}'
refuse 1 'trained on other pictures' "$serpentine" train fashion.yaml --dry-run data.normalize=half 'task={type: distillation, teacher: run}'

# a run goes on to the same end, whatever was drawn
long=(trainer.epochs=3 trainer.restore_best=false checkpoint.every_steps=1 'data.augment={crop: padded, flip: 0.5, mixup: 0.5}')
expect 0 'test' "$serpentine" train fashion.yaml "${long[@]}" --out whole
expect 0 'test' "$serpentine" train fashion.yaml "${long[@]}" trainer.max_steps=7 --out half
expect 0 'test' "$serpentine" train --resume half trainer.max_steps=0
cmp -s whole/test.json half/test.json || fail "a resumed run must end like one that was not interrupted"

# a checkpoint of another size
expect 1 'does not fit' "$serpentine" evaluate run 'model.dims=[16, 48]'
refuse 2 'no run folder' "$serpentine" predict nowhere photos

# photographs need OpenCV
if ! "$serpentine" doctor | grep -Eq '\+ pictures'; then finish; fi
mkdir -p photos/sneaker photos/bag photos/empty
"$serpentine" predict run --split test --out sheet >/dev/null 2>&1
expect_file sheet/sheet.png run/evaluation_test/confusion.png run/evaluation_test/mistakes.png
for i in 1 2 3 4 5 6 7 8 9; do
  cp sheet/sheet.png "photos/sneaker/$i.png"
  cp run/evaluation_test/confusion.png "photos/bag/$i.png"
done
: >photos/bag/zero.jpg
echo 'no picture' >photos/bag/words.png
head -c 3000 sheet/sheet.png >photos/sneaker/cut.png
cat >folder.yaml <<YAML
data: {type: image_folder, path: photos, image_size: [32], validation: 0.2, test: 0.2}
model: {type: vmamba, patch_size: 4, depths: [1, 1], dims: [8, 16]}
task: {type: classification}
loader: {batch_size: 4}
trainer: {epochs: 2, device: cpu}
YAML
expect 0 "2 pictures cannot be read.*|class folder 'empty'" "$serpentine" train folder.yaml --out photographs
grep -q 'zero.jpg: the file is empty' err.txt || fail "an empty file must be named"
expect 0 '18 pictures, 3 could not be read' "$serpentine" predict photographs photos --top 2
expect_file photographs/predictions/sheet.png
[ "$(grep -c '^left out' err.txt)" = 3 ] || fail "each damaged picture is said once"
expect 0 'explain.png' "$serpentine" explain photographs photos/bag/1.png photos/sneaker/2.png --out why
expect_file why/1.explain.png why/2.explain.png
refuse 2 "no class 'snaeker'; did you mean 'sneaker'" "$serpentine" explain photographs photos/bag/1.png --class snaeker
refuse 1 'holds no pictures' "$serpentine" predict photographs photos/empty
rm -r photos/bag
refuse 1 "at least two classes.*only 'sneaker'" "$serpentine" train folder.yaml --dry-run

expect 0 'Scan 2' "$serpentine" export photographs -o photographs.onnx
expect_file photographs.onnx
finish
