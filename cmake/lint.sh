#!/bin/sh
# Format and checks over the tracked files; ./serpent lint puts the pinned tools on PATH.
# --fix formats first. --all adds clang-tidy over every source; without it, over the sources changed
# since main.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0

fail() {
  printf 'lint: %s\n' "$*" >&2
  failed=1
}

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  files=$(git ls-files --cached --others --exclude-standard)
else # a source archive
  files=$(find . -type f ! -path './build/*' ! -path './.git/*' ! -path './runs/*' ! -path './install/*' | sed 's,^\./,,')
fi
select_files() { printf '%s\n' "$files" | grep -E "$1" || true; }
sources=$(select_files '\.(h|cpp|cu|cuh)$')

# Lists are split into words on purpose: no name has a space, which is checked.
# shellcheck disable=SC2086,SC2116
format() {
  unformatted=$(clang-format --dry-run $sources 2>&1 | sed -n 's/^\([^: ]*\):[0-9].*clang-format-violations.*/\1/p' | sort -u)
  [ -z "$unformatted" ] || fail "not formatted (clang-format -i FILE): $(echo $unformatted)"
}

# shellcheck disable=SC2086,SC2046
shell_and_yaml() {
  shellcheck serpent $(select_files '\.sh$') || fail "shellcheck found mistakes"
  yaml=$(select_files '\.ya?ml$' | grep -v '^tests/fuzz/')
  [ -z "$yaml" ] || yamllint --strict $yaml || fail "yamllint found mistakes"
}

text_rules() {
  case $files in *' '*) fail "a file name with a space" ;; esac
  for file in $files; do
    [ -f "$file" ] || continue
    case $file in
      tests/fuzz/corpus/*) ;;
      *.h | *.cpp | *.cu | *.cuh | *.cmake | *.txt | *.md | *.py | *.sh | *.yaml | *.yml | *.json)
        [ ! -s "$file" ] || [ -z "$(tail -c 1 "$file")" ] || fail "$file: no newline at the end"
        ! grep -q "$(printf '\r')" "$file" || fail "$file: carriage returns"
        ;;
    esac
    case $file in
      *.h | *.cpp | *.cu | *.cuh)
        lines=$(wc -l <"$file")
        [ "$lines" -le 400 ] || fail "$file: $lines lines, at most 400"
        ;;
    esac
    case $file in
      tests/golden/* | data/samples/*) ;;
      *)
        bytes=$(wc -c <"$file")
        [ "$bytes" -le 204800 ] || fail "$file: $bytes bytes, at most 200 KB outside tests/golden and data/samples"
        ;;
    esac
  done
}

# Two types of one name in the namespace `serpentine` are one type to the linker, which keeps the
# functions of either: the program then breaks where both libraries are loaded.
unique_names() {
  # shellcheck disable=SC2046,SC2086
  twice=$(awk '
    FNR == 1 { hidden = 0; inner = 0 }
    /^namespace \{/ { hidden = 1 }
    /^}  \/\/ namespace$/ { hidden = 0 }
    /^namespace serpentine::/ || /^namespace [a-z_]+ \{/ { inner = !/^namespace serpentine \{/ }
    !hidden && !inner && /^(struct|class|enum class) [A-Z][A-Za-z0-9]*( final)?( : [^;]*)? \{/ {
      name = $1 == "enum" ? $3 : $2
      if (name in place && place[name] != FILENAME) print name " (" place[name] ", " FILENAME ")"
      place[name] = FILENAME
    }' $(printf '%s\n' $sources | grep -v -e '^tests/' -e '^bench/'))
  [ -z "$twice" ] || fail "types of one name: $twice"
}

repository_size() {
  # shellcheck disable=SC2086
  total=$(cat $files 2>/dev/null | wc -c)
  [ "$total" -le 41943040 ] || fail "the tree has $total bytes, at most 40 MB"
}

# clang-tidy needs the compile commands of a build without GCC's precompiled header.
tidy() {
  if [ "${1:-}" = --all ]; then
    tidied=$(select_files '\.cpp$' | grep -v -e '^bench/ggml/' -e '^tests/')
  else
    tidied=$(git diff --name-only --diff-filter=d main... -- '*.cpp' 2>/dev/null | grep -v '^tests/' | head -n 10)
  fi
  [ -n "$tidied" ] || return 0
  for preset in dev release; do
    [ -f "build/$preset/compile_commands.json" ] || continue
    mkdir -p build/tidy
    sed -e 's/-Winvalid-pch//g; s/-fpch-preprocess//g; s/-include [^ ]*cmake_pch\.hxx//g' \
      -e 's/"command": "[^"]*ccache /"command": "/' \
      "build/$preset/compile_commands.json" >build/tidy/compile_commands.json
    printf '%s\n' "$tidied" | xargs -P "$(nproc)" -n 1 clang-tidy -p build/tidy --quiet ||
      fail "clang-tidy found mistakes"
    return 0
  done
  fail "clang-tidy needs a configured build: ./serpent build"
}

# shellcheck disable=SC2086
[ "${1:-}" != --fix ] || clang-format -i $sources
format
shell_and_yaml
text_rules
unique_names
repository_size
cmake -P tests/layers.cmake || fail "the dependency rule is broken"
tidy "${1:-}"
[ "$failed" -ne 0 ] || printf 'lint: clean\n' >&2
exit "$failed"
