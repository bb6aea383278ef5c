#!/bin/bash
# The viewer over a folder of slides, in a headless Chromium where there is one.
# shellcheck source=tests/apps/support.sh
source "$(dirname "$0")/support.sh" "$@"
here=$(dirname "$0") # ctest gives the whole path

"$serpentine" serve --help >/dev/null || fail "serve --help"
if "$serpentine" serve nowhere 2>&1 | grep -q 'no cpp-httplib'; then
  echo "skipped: this build has no viewer"
  exit 0
fi
refuse 1 'nowhere: there is no such' "$serpentine" serve nowhere
mkdir slides && cp "$tree/data/samples/slides/cmu-1-small-region.svs" slides/
"$serpentine" wsi info slides/cmu-1-small-region.svs --thumbnail slides/picture.jpg >/dev/null 2>&1 || exit 0
python3 "$here/viewer_test.py" "$serpentine" slides >viewer.txt 2>&1
code=$?
[ $code = 0 ] || [ $code = 77 ] || fail "the viewer: $(tail -n 20 viewer.txt)"
finish
