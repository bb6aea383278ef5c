#!/bin/bash
# Slides with the real program: tiles, features, damage, resuming, sharing, killed processes.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"

sample=$tree/data/samples/slides/cmu-1-small-region.svs
if ! "$serpentine" wsi info "$sample" >info.txt 2>&1; then
  echo "skipped: this build reads no slides: $(cat info.txt)"
  exit 0
fi
grep -q '2220 x 2967' info.txt || fail "wsi info: $(cat info.txt)"

# a folder with everything that goes wrong
mkdir -p slides/a slides/b
cp "$sample" slides/good.svs
cp "$sample" slides/a/twin.svs
cp "$sample" slides/b/twin.svs
head -c 900000 "$sample" >slides/truncated.svs
{ head -c 700000 "$sample"; head -c 40000 /dev/zero; tail -c +740001 "$sample"; } >slides/damaged.svs
: >slides/empty.svs
"$serpentine" wsi info "$sample" --thumbnail slides/nompp.jpg >/dev/null 2>&1
cp slides/nompp.jpg slides/renamed.svs
expect 1 'quarantine.csv' "$serpentine" tile slides -o tiles --size 224
expect_file tiles/coords/{good,a__twin,b__twin,damaged}.h5 tiles/contours/good.geojson tiles/pictures/good.png
for sign in 'truncated,' 'empty,.*empty' 'nompp,.*default-mpp' 'renamed,.*default-mpp'; do
  grep -q "$sign" tiles/quarantine.csv || fail "quarantine.csv must hold /$sign/: $(cat tiles/quarantine.csv)"
done
grep -Eq '^(good|a__twin|b__twin|damaged),' tiles/quarantine.csv && fail "sound slides are in quarantine"
expect_file tiles/bad_regions/damaged.geojson
[ ! -e tiles/bad_regions/good.geojson ] || fail "a sound slide has bad regions"
cmp -s tiles/coords/a__twin.h5 tiles/coords/b__twin.h5 && fail "slides of one name share a file"

# a second run does what is missing: with a default resolution the pictures too
before=$(stat -c %Y.%i tiles/coords/good.h5)
expect 1 'good: finished before' "$serpentine" tile slides -o tiles --size 224 --default-mpp 0.5
[ "$before" = "$(stat -c %Y.%i tiles/coords/good.h5)" ] || fail "a finished slide was made again"
grep -Eq '^(nompp|renamed),' tiles/quarantine.csv && fail "a resolution was given: $(cat tiles/quarantine.csv)"
grep -q '^renamed.*ordinary picture' tiles/quality.csv || fail "the renamed picture needs a remark"
refuse 1 'other settings' "$serpentine" tile slides -o tiles --size 512

# a corrected resolution reaches finished slides, and only those that it concerns
mkdir two && cp "$sample" two/one.svs && cp "$sample" two/other.svs
expect 0 'one: [0-9]+ tiles' "$serpentine" tile two -o two_tiles --no-read
printf '\xef\xbb\xbfslide,mpp\r\none.svs,0.25\r\n' >mpp.csv # with a byte-order mark
expect 0 'one: [0-9]+ tiles; made anew at 0.25 microns per pixel instead of 0.499' \
  "$serpentine" tile two -o two_tiles --no-read --mpp-csv mpp.csv
grep -q 'other: finished before' out.txt || fail "an unconcerned slide was made again: $(cat out.txt)"
expect 0 'one: finished before' "$serpentine" tile two -o two_tiles --no-read --mpp-csv mpp.csv
printf 'slide,mpp\nsomething.svs,0.25\n' >stray.csv
expect 0 "stray.csv: names none of the 2 slides" "$serpentine" tile two -o two_tiles --no-read --mpp-csv stray.csv
refuse 2 'overlap 256 must be below' "$serpentine" tile two -o none --overlap 256
for wrong in '--size 0' '--mpp 0' '--min-tissue 2' '--overlap -1'; do
  # shellcheck disable=SC2086
  expect 2 "${wrong%% *}" "$serpentine" tile two -o none $wrong
done

# no tile can be read: that is a failure, not a slide without tissue
python3 - "$sample" spoilt.svs <<'PY'
import struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
order = "<" if data[:2] == b"II" else ">"
at = struct.unpack_from(order + "I", data, 4)[0]  # level 0
for i in range(struct.unpack_from(order + "H", data, at)[0]):
    tag, kind, count, value = struct.unpack_from(order + "HHII", data, at + 2 + 12 * i)
    if tag == 324: offsets = struct.unpack_from(order + "%dI" % count, data, value)
    if tag == 325: sizes = struct.unpack_from(order + "%dI" % count, data, value)
for offset, size in zip(offsets, sizes): data[offset:offset + size] = bytes(size)
open(sys.argv[2], "wb").write(data)
PY
if [ -s spoilt.svs ]; then
  expect 1 'spoilt: FAILED' "$serpentine" tile spoilt.svs -o spoilt_tiles
  grep -q '^spoilt,' spoilt_tiles/quarantine.csv || fail "a slide without readable tiles is not in quarantine"
fi
refuse 1 'nowhere' "$serpentine" tile nowhere -o other

# a slide without tissue, and one that may not be read
mkdir bare && cp tiles/pictures/good.png bare/picture.png
python3 - <<'PY'
import zlib, struct
def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
rows = b"".join(b"\0" + b"\xf2\xf1\xf0" * 900 for _ in range(900))
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 900, 900, 8, 2, 0, 0, 0))
open("bare/glass.png", "wb").write(png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
PY
if [ -e bare/glass.png ]; then
  rm bare/picture.png
  expect 0 'no tissue was found' "$serpentine" tile bare -o bare_tiles --default-mpp 0.5
fi
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
  chmod 755 "$scratch" && mkdir -m 777 open && cp "$sample" open/secret.svs && chmod 000 open/secret.svs
  if setpriv --reuid=65534 --regid=65534 --clear-groups "$serpentine" --version >/dev/null 2>&1; then
    expect 1 'secret.*Permission denied' \
      setpriv --reuid=65534 --regid=65534 --clear-groups "$serpentine" tile open -o open/tiles
  fi
fi

# features; two processes of a job take disjoint slides
expect 0 'have features' env RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29999 \
  "$serpentine" embed-slides slides/a --encoder colour -o shared --size 224
[ -e shared/h5_files/twin.h5 ] || fail "rank 0 must take the first slide"
expect 1 'FAILED' "$serpentine" embed-slides slides --encoder colour --tiles tiles -o features --format h5,pt,safetensors
expect_file features/h5_files/good.h5 features/pt_files/good.pt features/good.safetensors
expect 1 'good: finished before' "$serpentine" embed-slides slides --encoder colour --tiles tiles -o features \
  --format h5,pt,safetensors
refuse 1 'other settings' "$serpentine" embed-slides slides --encoder colour --tiles tiles -o features --stain macenko
expect 0 'good: [0-9]+ tiles' "$serpentine" embed-slides slides/good.svs --encoder colour --tiles tiles -o formats
expect 0 'good: [0-9]+ tiles' "$serpentine" embed-slides slides/good.svs --encoder colour --tiles tiles -o formats \
  --format pt
expect_file formats/pt_files/good.pt
expect 0 'good: finished before' "$serpentine" embed-slides slides/good.svs --encoder colour --tiles tiles -o formats \
  --format pt,h5
refuse 1 'other settings' "$serpentine" embed-slides slides --encoder colour --tiles tiles -o other --size 512
refuse 2 'colour takes tiles as they are' "$serpentine" embed-slides slides --encoder colour -o other --input-size 32
for wrong in '--batch 0' '--readers 0' '--input-size -1' '--augment -1' '--augment-stain 2' '--min-hole -5'; do
  # shellcheck disable=SC2086
  expect 2 "${wrong%% *}" "$serpentine" embed-slides slides --encoder colour -o other $wrong
done
# a corrected resolution: features of the slide that it concerns are made anew, the others stay
expect 0 'have features' "$serpentine" embed-slides two --encoder colour -o corrected --no-read
expect 0 'one: [0-9]+ tiles' "$serpentine" embed-slides two --encoder colour -o corrected --no-read --mpp-csv mpp.csv
grep -q 'other: finished before' out.txt || fail "an unconcerned slide was embedded again: $(cat out.txt)"
expect 0 'one: finished before' "$serpentine" embed-slides two --encoder colour -o corrected --no-read --mpp-csv mpp.csv
printf 'slide,mpp\none.svs,40\n' >coarse.csv # over twice as coarse as the tiles: they cannot be made
expect 1 'one: FAILED' "$serpentine" embed-slides two --encoder colour -o corrected --no-read --mpp-csv coarse.csv
[ ! -e corrected/h5_files/one.h5 ] || fail "features of another resolution are left"
refuse 2 'there is no such' "$serpentine" embed-slides slides --encoder nothing.ts -o features2
printf 'no model' >wrong.ts
refuse 1 'wrong.ts: is no TorchScript' "$serpentine" embed-slides slides --encoder wrong.ts -o features3

# killed while it embeds: what is finished stays, the rest follows, no lock keeps it out
mkdir many
for i in 1 2 3; do cp "$sample" "many/s$i.svs"; done
"$serpentine" embed-slides many --encoder colour -o killed --batch 4 --no-read >killed.txt 2>&1 &
pid=$!
for _ in $(seq 600); do
  [ -e killed/reports/s1.json ] && break
  sleep 0.05
done
kill -KILL $pid
wait $pid 2>/dev/null
first=$(stat -c %Y.%i killed/h5_files/s1.h5)
expect 0 's1: finished before' "$serpentine" embed-slides many --encoder colour -o killed --batch 4 --no-read
[ "$first" = "$(stat -c %Y.%i killed/h5_files/s1.h5)" ] || fail "a finished slide was embedded again"
for i in 1 2 3; do expect_file "killed/h5_files/s$i.h5"; done

# a model over bags, and a new slide; killed while the heatmap is written, then whole
for i in 4 5 6; do cp killed/h5_files/s3.h5 "killed/h5_files/s$i.h5"; done
cat >bags.yaml <<'YAML'
data: {type: bags, path: labels.csv, features: killed, standardize: true, splits: {folds: 3, validation: 0.3}}
model: {type: ab_mil, hidden: 16}
task: {type: bag_classification}
loader: {batch_size: 2}
trainer: {epochs: 2, device: cpu}
optimizer: {type: adam, lr: 0.001}
YAML
{ echo slide_id,case_id,label; for i in 1 2 3 4 5 6; do echo "s$i,p$i,$((i % 2))"; done; } >labels.csv
echo s9,p9,1 >>labels.csv
sed -i '2i s0,p0,1' labels.csv # the first bag has another width than the others
python3 - <<'PY'
header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 7), }"
header += " " * (117 - len(header)) + "\n"
open("killed/s0.npy", "wb").write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(84))
PY
expect 0 'classes, with their bags: 0 \(3\), 1 \(3\)' "$serpentine" train bags.yaml --out bagrun
grep -q 'test  ' out.txt || fail "no test: $(cat out.txt)"
grep -q '2 bags are left out: s9 (no file of features.*s0 (its tiles have 7 features, most have 48)' out.txt ||
  fail "what is left out is not named: $(cat out.txt)"
grep -q '2 bags are left out; why stands in bagrun/left_out.csv' out.txt || fail "left_out.csv is not named"
grep -q '^s9,no file of features' bagrun/left_out.csv || fail "left_out.csv: $(cat bagrun/left_out.csv)"
grep -q '^s0,"its tiles have 7 features, most have 48"' bagrun/left_out.csv || fail "left_out.csv: $(cat bagrun/left_out.csv)"
"$serpentine" wsi predict bagrun slides/good.svs -o predictions --heat-mpp 0.5 >predict.txt 2>&1 &
pid=$!
for _ in $(seq 1200); do
  ls predictions/good/heatmap.ome.tif.part-* >/dev/null 2>&1 && break
  sleep 0.02
done
kill -KILL $pid
wait $pid 2>/dev/null
[ ! -e predictions/good/prediction.json ] || fail "a killed prediction must not look finished"
expect 0 'good: .*probability' "$serpentine" wsi predict bagrun slides/good.svs -o predictions
expect_file predictions/good/{report.html,overlay.png,heatmap.ome.tif,top_tiles.png,tiles.geojson,prediction.json}
ls predictions/good/*.part-* >/dev/null 2>&1 && fail "parts of a killed heatmap are left"
expect 0 'good: finished before' "$serpentine" wsi predict bagrun slides/good.svs -o predictions
# another model, other tiles: a new answer, and a line that says why
expect 0 'test +[a-z]' "$serpentine" train bags.yaml --out otherrun model.type=mean_mil
expect 0 'good: predicted anew, other run than before' "$serpentine" wsi predict otherrun slides/good.svs -o predictions
grep -q 'mean_mil' predictions/good/prediction.json || fail "the answer is the other model's"
expect 0 'good: finished before' "$serpentine" wsi predict otherrun slides/good.svs -o predictions
expect 0 'good: predicted anew, other tiles than before' "$serpentine" wsi predict otherrun slides/good.svs \
  -o predictions --min-tissue 0.5 --heat-mpp 2
grep -q 'note  *--min-tissue 0.5, but the model learnt from features with 0.25' out.txt ||
  fail "an option that departs from the features is not told: $(cat out.txt)"
expect 0 'good: predicted anew, other pictures than before' "$serpentine" wsi predict otherrun slides/good.svs \
  -o predictions --min-tissue 0.5 --heat-mpp 0 --heat tile --colours viridis
grep -q '"shows": "probability"' predictions/good/prediction.json || fail "--heat tile: $(cat predictions/good/prediction.json)"
grep -q 'scale viridis' predictions/good/report.html || fail "the report does not name the colours"
refuse 2 'colour takes tiles as they are' "$serpentine" wsi predict otherrun slides/good.svs -o predictions --input-size 64

# survival: the heat is the risk of each tile
awk -F, 'NR == 1 {print "slide_id,case_id,months,censorship"} NR > 1 {print $1 "," $2 "," NR * 3 "," 0}' labels.csv >times.csv
expect 0 'test +c_index' "$serpentine" train bags.yaml --out survival data.path=times.csv data.columns.time=months \
  data.bins=2 task.type=survival
expect 0 'good: risk' "$serpentine" wsi predict survival slides/good.svs -o risks --heat-mpp 0
grep -q '"shows": "risk"' risks/good/prediction.json || fail "the heat of survival: $(cat risks/good/prediction.json)"
grep -q 'risk that the model would give each tile alone' risks/good/report.html || fail "the report does not say what the heat is"
head -1 risks/good/tiles.csv | grep -q 'x,y,risk,rank' || fail "tiles.csv: $(head -2 risks/good/tiles.csv)"
expect 0 'good: predicted anew' "$serpentine" wsi predict survival slides/good.svs -o risks --heat-mpp 0 --heat attention
grep -q '"shows": "attention"' risks/good/prediction.json || fail "--heat attention: $(cat risks/good/prediction.json)"

# augmented copies beside the features, and a training that draws from them
expect 0 'have features' "$serpentine" embed-slides many --encoder colour -o augmented --augment 1 --no-read
refuse 2 'pt holds no copies' "$serpentine" embed-slides many --encoder colour -o pt_only --augment 1 --format pt
for i in 4 5 6; do cp augmented/h5_files/s3.h5 "augmented/h5_files/s$i.h5"; done
expect 0 'test  ' "$serpentine" train bags.yaml --out augrun data.features=augmented data.augmented=true
expect 1 'holds no augmented copies' "$serpentine" train bags.yaml --out plainrun data.augmented=true

# an encoder of our own with its input size, which a new slide goes through, too
python3 - <<'PY'
import os, random
random.seed(1)
for kind in ("dark", "light"):
    os.makedirs("photos/" + kind, exist_ok=True)
    for i in range(10):
        data = bytes(random.randrange(128) + 120 * (kind == "light") for _ in range(32 * 32 * 3))
        open("photos/%s/%d.ppm" % (kind, i), "wb").write(b"P6 32 32 255\n" + data)
PY
expect 0 'test' "$serpentine" train "$tree/configs/test/vision_vmamba.yaml" --out eye data.type=image_folder data.path=photos \
  data.image_size=[32] loader.batch_size=7
expect 0 'have features' "$serpentine" embed-slides many --encoder eye -o seen --input-size 32 --no-read
for i in 4 5 6; do cp seen/h5_files/s3.h5 "seen/h5_files/s$i.h5"; done
expect 0 'test  ' "$serpentine" train bags.yaml --out seenrun data.features=seen
expect 0 'good: .*probability' "$serpentine" wsi predict seenrun slides/good.svs -o seen_out --heat-mpp 0
grep -q '"input_size": 32' seen_out/good/inputs.json || fail "the input size of the features was not used"
expect 0 'good: predicted anew, other input_size' "$serpentine" wsi predict seenrun slides/good.svs -o seen_out --heat-mpp 0 --input-size 16
grep -q 'note  *--input-size 16, but the model learnt from features with 32' out.txt || fail "input size: $(cat out.txt)"
refuse 2 'no-read' "$serpentine" wsi predict otherrun slides/good.svs -o predictions --no-read

# a cross-validation whose folds are not all finished
expect 0 'pooled' "$serpentine" crossval bags.yaml --folds 3 --out folds trainer.epochs=1
grep -q '2 bags of the table are left out; why stands in folds/fold_0/left_out.csv' out.txt || fail "crossval: $(cat out.txt)"
rm folds/fold_1/calibration.json
expect 0 'not finished: fold 1 of 3; 2 folds are averaged' "$serpentine" wsi predict folds slides/good.svs -o by_folds
rm folds/fold_{0,2}/calibration.json
refuse 2 'none of its 3 folds is finished' "$serpentine" wsi predict folds slides/good.svs -o by_folds
refuse 1 'labels.csv: is no slide' "$serpentine" serve labels.csv
expect 1 'truncated: FAILED' "$serpentine" wsi predict bagrun slides/truncated.svs -o predictions
refuse 2 'does not read bags|no run folder' "$serpentine" wsi predict nothing slides/good.svs -o predictions2
finish
