#!/usr/bin/env bash
# Builds the SDK for a chip with many combinations of features, warnings denied: what an application leaves out must not be missed.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

. firmware-examples/toolchain.sh
target=thumbv7m-none-eabi
firmware_find "$target" || exit 1
# What a device talks of, of which there must be some; and what else it may do.
talks=(topics messages commands state)
parts=("${talks[@]}" pairing sleep persist)
all=$(printf ',%s' "${parts[@]}")
combinations=(mqtt,full native,full mqtt,native,full,update mqtt,full,update native,full,update mqtt,mqtt311,messages)
for wire in mqtt native; do
  for one in "${talks[@]}"; do combinations+=("$wire,$one"); done
  # Each beside topics, and all but each.
  for one in "${parts[@]:1}"; do combinations+=("$wire,topics,$one" "$wire${all/,$one/}"); done
done
mapfile -t combinations < <(printf '%s\n' "${combinations[@]}" | awk '!seen[$0]++')
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
for combination in "${combinations[@]}"; do
  if ! firmware_check device-sdk "$target" --features "$combination" >"$log" 2>&1; then
    grep -A8 '^error\|^warning' "$log" | head -30
    echo "does not build with $combination"
    failed=$((failed + 1))
  fi
done
echo "${#combinations[@]} combinations of features, $failed do not build"
[ "$failed" = 0 ]
