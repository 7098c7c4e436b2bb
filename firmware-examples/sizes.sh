#!/usr/bin/env bash
# Measures what the SDK costs: the same small program with it, minus the same without it. Compares with sizes.csv and fails when something
# has grown by more than 3 %. With --write it writes sizes.csv anew, and the table in SIZES.md.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
write=0
[ "${1:-}" = --write ] && write=1

. firmware-examples/toolchain.sh
targets=(thumbv7m-none-eabi riscv32imac-unknown-none-elf)
firmware_find "${targets[@]}" || exit 1
variants=(none mqtt native mqtt,flash mqtt,tls native,tls mqtt,tls,flash rust-mqtt minimq)
measured=$(mktemp)
log=$(mktemp)
trap 'rm -f "$measured" "$log"' EXIT
for target in "${targets[@]}"; do
  for variant in "${variants[@]}"; do
    features=$variant
    [ "$variant" = none ] && features=
    firmware_build firmware-examples/sizes "$target" --features "$features" >"$log" 2>&1 || { tail -30 "$log"; exit 1; }
    echo "$target $variant $(firmware_program sizes "$target")" >>"$measured"
    cp "$(firmware_program sizes "$target")" "$firmware_target/size-$target-$variant"
  done
done
python3 firmware-examples/sizes.py "$firmware_target" "$firmware_with" "$write" <"$measured"
