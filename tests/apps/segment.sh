#!/bin/bash
# Segmentation from the command line: plan, cross-validation, its rules, predictions, bad input.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"

samples=$tree/data/samples/hippocampus
config=$tree/configs/test/segmentation_unet.yaml
{
  echo "image,label,name"
  for case in 001 003 004 006; do
    echo "$samples/imagesTr/hippocampus_$case.nii.gz,$samples/labelsTr/hippocampus_$case.nii.gz,case_$case"
  done
} >four.csv
# shellcheck disable=SC2329  # called through `expect`
cross() { "$serpentine" segment crossval "$config" data.path=four.csv data.folds=2 --no-mirror "$@"; }

expect 0 'patch: \[16, 16, 16\]' "$serpentine" segment plan four.csv --patch 16 16 16
expect 0 'rules: ' cross --out runs/cv
tr '\r' '\n' <err.txt | grep -q '^rules.* 4/4' || fail "the progress of the rules ends at all cases: $(cat err.txt)"
expect_file runs/cv/plan.yaml runs/cv/fold_1/data.json \
  runs/cv/report/cases.csv runs/cv/report/classes.csv runs/cv/report/dice.svg \
  runs/cv/postprocess.txt runs/cv/fold_0/postprocess.json runs/cv/fold_1/postprocess.json
[ -f runs/cv/fold_0/finished ] || fail "a finished fold has its mark"
for case in 001 003 004 006; do expect_file "runs/cv/held_out/case_$case.nii.gz"; done
[ "$(wc -l <runs/cv/report/cases.csv)" = 9 ] || fail "every case is judged once, by two classes"
cmp runs/cv/fold_0/postprocess.json runs/cv/fold_1/postprocess.json || fail "the folds' rules differ"

# a fold keeps its last weights: an epoch chosen by the cases held out would flatter the report
rms() { "$serpentine" weights "$1" | sed 's/^model\.//' | awk '/ rms /{print $1, $NF}' | sort; }
last=$(find runs/cv/fold_0/checkpoints -name 'step_*' | sort -V | tail -n 1)
rms runs/cv/fold_0/checkpoints/best.safetensors >kept.txt
rms "$last" | grep -Fxf kept.txt | cmp - kept.txt || fail "a fold must keep its last weights"
grep -q 'restore_best: false' runs/cv/fold_0/config.yaml || fail "a fold must not restore its best"

# the plan's batch counts where the configuration names none
sed 's/^batch: .*/batch: 3/' runs/cv/plan.yaml >three.yaml
expect 0 'epoch 1 of 1' "$serpentine" train "$tree/configs/segmentation/base/nnunet.yaml" data.path=four.csv \
  data.plan=three.yaml data.folds=2 data.patches=6 model.type=unet trainer.epochs=1 --out runs/three
tail -n 1 runs/three/metrics.csv | cut -d, -f1,2 | grep -qE '(^|,)2(,|$)' || fail "6 patches by threes are 2 steps"

# what is finished is kept; the end of it is done again
cp runs/cv/report/cases.csv before.csv
rm -r runs/cv/report runs/cv/held_out/case_004.nii.gz runs/cv/fold_1/finished
expect 0 'fold 0 +finished before' cross --out runs/cv
grep -q 'resumed' out.txt || fail "fold 1 must go on from its checkpoint"
cmp before.csv runs/cv/report/cases.csv || fail "the report of the repeated end differs"
refuse 2 'runs/cv: its folds began with trainer.seed = .*, this call says 77' cross --out runs/cv trainer.seed=77

# a cross-validation stands for its folds, and its rules are applied unless told otherwise
echo '{"foreground": true, "largest": [1], "fill_holes": []}' |
  tee runs/cv/fold_0/postprocess.json >runs/cv/fold_1/postprocess.json
new=$samples/imagesTs/hippocampus_033.nii.gz
expect 0 'rules: the largest part of all labels together; the largest part of 1' \
  "$serpentine" segment predict runs/cv "$new" -o ruled --no-mirror
expect 0 'hippocampus_033' "$serpentine" segment predict runs/cv/fold_0 runs/cv/fold_1 "$new" \
  -o plain --no-mirror --keep-parts
! grep -q 'rules:' out.txt || fail "--keep-parts must not apply rules"
expect_file ruled/hippocampus_033.nii.gz plain/hippocampus_033.nii.gz
expect 0 'rules: the largest part of 1 and 2$' "$serpentine" segment predict runs/cv "$new" \
  -o largest --no-mirror --largest
expect 0 'is there already' "$serpentine" segment predict runs/cv "$new" -o largest --no-mirror
expect 1 'no DICOM-SEG; .*hippocampus_033.nii.gz is not DICOM|this build writes no DICOM-SEG' \
  "$serpentine" segment predict runs/cv "$new" -o largest --no-mirror --dicom-seg seg
mkdir truth && cp "$samples/labelsTs/hippocampus_033.nii.gz" truth/
expect 0 'Anterior|class 1|1 ' "$serpentine" segment evaluate ruled truth -o report \
  --images "$samples/imagesTs"
expect_file report/cases.csv report/worst.png report/hippocampus_033.html

# what is missing is named, and images that cannot be read cost their pictures only
expect 1 'hippocampus_034: is missing' "$serpentine" segment evaluate ruled "$samples/labelsTs" -o missing
grep -q '^missing 1$' out.txt || fail "the summary counts what is missing"
grep -Eq '^hippocampus_034,1,+$' missing/cases.csv || fail "a missing case has a row without figures"
mkdir images && cp "$samples/imagesTs/hippocampus_034.nii.gz" images/
head -c 3000 "$samples/imagesTs/hippocampus_033.nii.gz" >images/hippocampus_033.nii.gz
expect 1 'hippocampus_033: has no pictures; .*images/hippocampus_033.nii.gz: is cut off' \
  "$serpentine" segment evaluate "$samples/labelsTs" "$samples/labelsTs" -o drawn --images images
expect_file drawn/hippocampus_034.html drawn/worst.png

echo '{"foreground": false, "largest": [2], "fill_holes": []}' >runs/cv/fold_1/postprocess.json
refuse 1 "fold_1 was given the rules 'the largest part of 2'" \
  "$serpentine" segment predict runs/cv "$new" -o ruled --overwrite
echo '{' >runs/cv/fold_1/postprocess.json
refuse 1 'postprocess.json: is damaged' "$serpentine" segment predict runs/cv "$new" -o ruled

# the plot of a training has both curves
expect 0 'epoch|loss' "$serpentine" train "$config" data.path=four.csv trainer.epochs=2 --out runs/two
# shellcheck disable=SC2016  # gnuplot's name of the data
[ "$(sed -n '/^$curve0_1 /,/^E/p' runs/two/plots/loss.gp | grep -Ec '^[0-9.]+ [0-9.e-]+$')" = 2 ] ||
  fail "the validation curve has a point an epoch: $(head -n 12 runs/two/plots/loss.gp)"

# options out of their range are named
for option in '--dims 5' '--patch 0 0 0' '--first-features 0' '--batch -1' '--memory 0'; do
  # shellcheck disable=SC2086  # an option and its values
  refuse 2 "${option%% *}" "$serpentine" segment plan four.csv $option
done
for option in '--step 2' '--step 0' '--windows -1'; do
  # shellcheck disable=SC2086
  refuse 2 "${option%% *}" "$serpentine" segment predict runs/cv/fold_0 "$new" -o x $option
done
for option in '--worst -1' '--tolerance -1' '--lesion-overlap 2'; do
  # shellcheck disable=SC2086
  refuse 2 "${option%% *}" "$serpentine" segment evaluate ruled truth $option
done

# bad input: sentences, and what can be done is done
head -c 3000 "$new" >cut.nii.gz
mkdir mixed && cp "$new" cut.nii.gz mixed/
refuse 1 'cut: left out; .*cut.nii.gz: is cut off' \
  "$serpentine" segment predict runs/cv/fold_0 cut.nii.gz -o bad --no-mirror
expect 1 'mixed/cut.nii.gz: is cut off' \
  "$serpentine" segment predict runs/cv/fold_0 mixed -o some --no-mirror
expect_file some/hippocampus_033.nii.gz
refuse 1 'fold 2 of 9|holds no case' "$serpentine" segment crossval "$config" data.path=four.csv \
  data.folds=9 --out runs/many
mkdir -p lacks/images lacks/labels
for case in 001 003 004; do cp "$samples/imagesTr/hippocampus_$case.nii.gz" lacks/images; done
for case in 001 003; do cp "$samples/labelsTr/hippocampus_$case.nii.gz" lacks/labels; done
expect 1 'hippocampus_004: left out' "$serpentine" segment crossval "$config" data.path=lacks \
  data.folds=2 --no-mirror --out runs/lacks
grep -q '^1 of 3 cases were left out' err.txt || fail "crossval counts what was left out: $(cat err.txt)"
refuse 2 'data.type must be segmentation' "$serpentine" segment crossval tiny.yaml
sed '1s/$/,split/; 2,4s/$/,train/; 5s/$/,test/' four.csv >split.csv
refuse 1 'split.csv: .*' "$serpentine" segment crossval "$config" data.path=split.csv data.folds=2 \
  --out runs/split
sed '1s/$/,split/; 2,4s/$/,train/; 5s/$/,Val/' four.csv >held.csv
refuse 1 'held.csv: the data name their own validation cases' "$serpentine" segment crossval \
  "$config" data.path=held.csv data.folds=2 --out runs/held
mkdir channels && cp "$new" channels/x_0000.nii.gz && cp "$new" channels/y_0001.nii.gz
expect 1 'y: left out, channels are missing or too many: there are 0001 of 1' \
  "$serpentine" segment predict runs/cv/fold_0 channels -o lacking --no-mirror
expect_file lacking/x.nii.gz

# cases of one file name, told apart by their folders
mkdir -p same/p same/q
for patient in p q; do
  cp "$samples/imagesTr/hippocampus_001.nii.gz" "same/$patient/img.nii.gz"
  cp "$samples/labelsTr/hippocampus_001.nii.gz" "same/$patient/seg.nii.gz"
done
printf 'image;label\r\np/img.nii.gz;p/seg.nii.gz\r\nq/img.nii.gz;q/seg.nii.gz\r\n' >same/set.csv
expect 0 'fold 1' "$serpentine" segment crossval "$config" data.path=same/set.csv data.folds=2 \
  --no-mirror --out runs/same
expect_file runs/same/held_out/p_img.nii.gz runs/same/held_out/q_img.nii.gz
refuse 2 "there is no run folder 'nowhere'" "$serpentine" segment predict nowhere "$new" -o x

finish
