#!/bin/bash
# Every wrong input gives one clear sentence with file and place, and a failing exit code.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"

# called through refuse and expect
# shellcheck disable=SC2329
try() { "$serpentine" train tiny.yaml "data.path=$1" --dry-run; }

# tables
{ make_csv 100 | sed '51s/,[^,]*$//'; } >ragged.csv
refuse 1 'ragged.csv:51.*2.*3|ragged.csv:51' try ragged.csv
gzip -c good.csv | head -c 2000 >cut.csv.gz
refuse 1 'cut.csv.gz' try cut.csv.gz
: >empty.csv
refuse 1 'empty.csv.*empty' try empty.csv
make_csv 100 'if (r == 30) b = "warm"' >words.csv
refuse 1 "words.csv:32:[0-9]+.*'heat'.*warm" try words.csv
make_csv 100 'if (r == 30) date = "2024-01-02 05:00:00"' >twice.csv
refuse 1 'twice.csv:32' try twice.csv
make_csv 100 | tr , ';' >semicolon.csv
refuse 1 'semicolon.csv.*delimiter' try semicolon.csv
{ make_csv 100 | sed 's/heat/h\xe9at/'; } >latin.csv
refuse 1 'latin.csv:1.*UTF-8' try latin.csv
make_csv 30 >short.csv
refuse 1 'short.csv.*(rows|window)' try short.csv
refuse 1 'nowhere.csv' try nowhere.csv
refuse 1 'pred_len' "$serpentine" train tiny.yaml data.pred_len=100000 --dry-run

# a constant column and missing values are no errors, and a column without values is
make_csv 600 'b = 7' >constant.csv
expect 0 "heat.*constant|constant.*heat" try constant.csv
expect 0 'test +[a-z]' "$serpentine" train tiny.yaml data.path=constant.csv trainer.max_steps=3 --out constant
grep -Eqi 'nan|inf' constant/metrics.csv && fail "a constant column must not make the metrics NaN"
make_csv 600 'if (r % 7 == 0) b = "NaN"' >gaps.csv
expect 0 'test +[a-z]' "$serpentine" train tiny.yaml data.path=gaps.csv trainer.max_steps=3 --out gaps
make_csv 600 'b = ""' >void.csv
refuse 1 "void.csv.*heat" try void.csv

# configurations: exit code 2, every error with its place
cat >wrong.yaml <<'YAML'
data: {type: series, path: good.csv, seq_len: twelve, pred_len: 12}
model: {type: s_mamba, d_modell: 16}
task: {type: forcast}
trainer: {epochs: -1}
YAML
expect 2 'wrong.yaml:1:' "$serpentine" train wrong.yaml
for sign in 'wrong.yaml:1:.*seq_len' "wrong.yaml:2:.*d_modell.*d_model" "wrong.yaml:3:.*forcast.*forecast" 'wrong.yaml:4:.*epochs'; do
  grep -Eq "$sign" err.txt || fail "wrong.yaml: all errors at once must hold /$sign/: $(cat err.txt)"
done
refuse 2 'absent.yaml' "$serpentine" train absent.yaml
refuse 2 'trainer.epoch' "$serpentine" train tiny.yaml trainer.epoch=3
refuse 2 "did you mean 'train'" "$serpentine" trian tiny.yaml
refuse 2 "no command 'trian'; did you mean 'train'" "$serpentine" --threads 1 trian tiny.yaml
refuse 2 "wsi: there is no command 'inof'; did you mean 'info'" "$serpentine" wsi inof good.csv
refuse 2 "no option '--thraeds'; did you mean '--threads'" "$serpentine" --thraeds 2 train tiny.yaml
refuse 2 "train: there is no option '--thraeds'; did you mean '--threads'" "$serpentine" train --thraeds=2 tiny.yaml
refuse 2 "no option '--horizn'; did you mean '--horizon'" "$serpentine" forecast run good.csv --horizn 12
refuse 2 "no option '--nothing-like-it'[.] See" "$serpentine" train tiny.yaml --nothing-like-it
refuse 2 "one file is trained at a time, 'tiny.yaml' or 'wrong.yaml'; overrides are KEY=VALUE" "$serpentine" train tiny.yaml wrong.yaml
refuse 2 "'epochs' is neither the YAML file nor an override" "$serpentine" train tiny.yaml epochs
refuse 1 'good.csv: is no slide; slides are' "$serpentine" wsi info good.csv
mkdir -p norun/inside && touch norun/inside/config.yaml
refuse 2 'norun/inside/config.yaml is no run folder: it is a file' "$serpentine" train --resume norun/inside/config.yaml
refuse 2 'norun is no run folder: it holds no config.yaml; norun/inside is one' "$serpentine" train --resume norun
refuse 2 'nowhere is no run folder: there is no such folder' "$serpentine" train --resume nowhere
refuse 2 "leave 'tiny.yaml' away" "$serpentine" train --resume norun/inside tiny.yaml
refuse 2 'horizon' "$serpentine" forecast run good.csv --horizon many
refuse 2 'no run folder' "$serpentine" forecast nothing good.csv

# checkpoints
"$serpentine" train tiny.yaml --out run >train.txt 2>&1 || fail "training: $(tail -n 3 train.txt)"
best=run/checkpoints/best.safetensors
make_csv 10 >tooshort.csv
refuse 1 'tooshort.csv.*24.*10' "$serpentine" forecast run tooshort.csv --out future
refuse 1 'good.csv.*horizon.*900|900.*horizon' "$serpentine" forecast run good.csv --horizon 900 --out future
expect 1 'does not fit' "$serpentine" evaluate run model.d_model=32
head -c 3000 $best >truncated.safetensors
refuse 1 'truncated.safetensors' "$serpentine" weights truncated.safetensors
{ head -c 20 $best; printf '\xff\xff'; tail -c +23 $best; } >flipped.safetensors
refuse 1 'flipped.safetensors' "$serpentine" weights flipped.safetensors
steps=(run/checkpoints/step_*)
step=${steps[-1]}
cp -r run flipped
size=$(stat -c %s "$step")
{ head -c $((size - 100)) "$step"; printf '\x55\xaa'; tail -c 98 "$step"; } >"flipped/checkpoints/$(basename "$step")"
expect 0 "$(basename "$step") is damaged" "$serpentine" train --resume flipped trainer.epochs=3
grep -q 'resumed    flipped/checkpoints/step_' out.txt || fail "an older checkpoint must serve when the newest is damaged"
rm -r flipped && cp -r run flipped
for each in flipped/checkpoints/step_*; do head -c 3000 "$each" >short.bin && mv short.bin "$each"; done
sum() { find "$1" -type f | sort | xargs cat | cksum; }
before=$(sum flipped)
expect 1 'none of its [0-9]+ checkpoints can be read' "$serpentine" train --resume flipped trainer.epochs=3
expect 1 'another configuration: model.d_model = [0-9]+, this call says 32' "$serpentine" train --resume run trainer.epochs=3 model.d_model=32
expect 1 'other data: ' "$serpentine" train --resume run trainer.epochs=3 'data.targets=[load]'
[ "$before" = "$(sum flipped)" ] || fail "a refused run must stay as it is"
cp -r run kept
expect 1 'another configuration' "$serpentine" train --resume kept trainer.epochs=3 model.d_model=32
expect 1 'other data: ' "$serpentine" train --resume kept trainer.epochs=3 data.targets=load
[ "$(cd run && sum .)" = "$(cd kept && sum .)" ] || fail "a refused run must stay as it is"

# one bit of the weights themselves: forecasts would be wild, without a word
cp -r run bit
best_size=$(stat -c %s $best)
{ head -c $((best_size - 50)) $best; printf '\x7f'; tail -c 49 $best; } >bit/checkpoints/best.safetensors
refuse 1 'best.safetensors is damaged' "$serpentine" forecast bit good.csv
refuse 1 'best.safetensors is damaged' "$serpentine" evaluate bit
mkdir nothing
refuse 1 'nothing: is not a run folder' "$serpentine" evaluate nothing
printf '\x80\x02cos\nsystem\nq\x00X\x0e\x00\x00\x00touch pwned.txtq\x01\x85q\x02Rq\x03.' >malicious.pth
refuse 1 'malicious.pth' "$serpentine" weights malicious.pth
[ ! -e pwned.txt ] || fail "a malicious pickle was executed"

# disks: a file in place of a folder (root may write everywhere), and one that fills up
refuse 1 'train.txt/run' "$serpentine" train tiny.yaml --out train.txt/run
refuse 1 'tiny.yaml/future' "$serpentine" forecast run good.csv --out tiny.yaml/future
cp -r run full
before=$(cat full/checkpoints/step_* | cksum)
(
  ulimit -f 4 # blocks of 1 KiB; the metrics fit, a checkpoint does not
  "$serpentine" train --resume full trainer.epochs=3 >full.txt 2>&1
)
code=$?
[ $code = 1 ] || fail "a full disk must end with exit code 1, got $code: $(tail -n 5 full.txt)"
grep -Eq 'step_[0-9]+.safetensors.*(large|space)' full.txt || fail "a full disk must be named: $(cat full.txt)"
[ "$before" = "$(cat full/checkpoints/step_* | cksum)" ] || fail "a full disk must not cost the old checkpoints"
grep -Eq 'frame #|terminate' full.txt && fail "a full disk must give no stack trace"
expect 0 'test +[a-z]' "$serpentine" train --resume full trainer.epochs=3

# a Parquet file under another name: what to do, or its rows
cp "$tree/tests/timeseries/data/zone.parquet" parquet.csv
refuse 1 'parquet.csv.*(Parquet|rows)' try parquet.csv
refuse 1 'parquet.csv: this is a Parquet file, not text; convert it' "$serpentine" train tiny.yaml \
  data.path=parquet.csv data.format=csv --dry-run

# no permission: root is bound first, for it may write everywhere
bound=()
[ "$(id -u)" != 0 ] || bound=(setpriv '--bounding-set=-dac_override,-dac_read_search')
if [ "$(id -u)" != 0 ] || "${bound[@]}" true 2>/dev/null; then
  mkdir locked && chmod 555 locked
  refuse 1 'locked/run.*Permission denied' "${bound[@]}" "$serpentine" train tiny.yaml --out locked/run
  refuse 1 'locked/future.*Permission denied' "${bound[@]}" "$serpentine" forecast run good.csv --out locked/future
  cp good.csv secret.csv && chmod 000 secret.csv
  refuse 1 'secret.csv.*Permission denied' "${bound[@]}" "$serpentine" train tiny.yaml data.path=secret.csv --dry-run
  cp -r run sealed && chmod 555 sealed/checkpoints
  before=$(cat sealed/checkpoints/* | cksum)
  expect 1 'sealed/checkpoints/step_.*Permission denied' "${bound[@]}" "$serpentine" train --resume sealed trainer.epochs=3
  [ "$before" = "$(cat sealed/checkpoints/* | cksum)" ] || fail "a locked folder must not cost the old checkpoints"
fi

# a disk of one megabyte that is full for real, and has room again later (needs root)
cat >disk.sh <<'SH'
set -e
mkdir disk && mount -t tmpfs -o size=1m none disk && cp -r run disk/run
before=$(cat disk/run/checkpoints/* | cksum)
head -c 2M /dev/zero >disk/filler 2>/dev/null || true
set +e
"$1" train --resume disk/run trainer.epochs=3 >disk.txt 2>&1
echo "code $?"
[ "$before" = "$(cat disk/run/checkpoints/* | cksum)" ] && echo "kept"
rm disk/filler
"$1" train --resume disk/run trainer.epochs=3 >again.txt 2>&1
echo "again $?"
SH
if unshare -m mount -t tmpfs none /mnt 2>/dev/null; then
  unshare -m bash disk.sh "$serpentine" >disk_said.txt 2>&1
  for line in 'code 1' kept 'again 0'; do
    grep -q "^$line\$" disk_said.txt || fail "a full disk: no '$line': $(cat disk_said.txt; tail -n 5 disk.txt again.txt)"
  done
  grep -q 'No space left on device' disk.txt || fail "a full disk must be named: $(cat disk.txt)"
  grep -Eq 'frame #|terminate' disk.txt && fail "a full disk must give no stack trace"
fi
finish
