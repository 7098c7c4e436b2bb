#!/usr/bin/env bash
# Measures what the SDK costs: the same small program with it, minus the same without it; and, on the emulated board against a real
# broker, how much deeper its stack is. Compares with sizes.csv and fails when something has grown by more than 3 %. With --write
# it writes sizes.csv anew, and the table in SIZES.md.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
write=0
[ "${1:-}" = --write ] && write=1

. firmware-examples/toolchain.sh
declare -A board=([thumbv7m-none-eabi]=an385 [riscv32imac-unknown-none-elf]=virt)
targets=(thumbv7m-none-eabi riscv32imac-unknown-none-elf)
firmware_find "${targets[@]}" || exit 1
firmware_emulators || exit 1
variants=(
  none
  mqtt,topics mqtt,topics,state mqtt,topics,state,commands mqtt,topics,messages mqtt,topics,flash mqtt,full mqtt,full,flash mqtt,topics,tls mqtt,full,tls,flash
  native,messages native,topics native,messages,flash native,messages,state,commands native,full native,full,flash native,messages,tls
  rust-mqtt minimq
)
# On the second target the code is the same, and longer by about the same: fewer sets say by how much.
fewer=(none mqtt,topics mqtt,topics,state,commands mqtt,full mqtt,full,tls,flash native,messages native,full rust-mqtt minimq)
measured=$(mktemp)
log=$(mktemp)
trap 'rm -f "$measured" "$log" "$log".*' EXIT
# build TARGET VARIANT NAME [FEATURE]: the program is kept under the name.
build() {
  local features=$2
  [ "$2" = none ] && features=
  firmware_build firmware-examples/sizes "$1" --features "$features,${4:-}" >"$log" 2>&1 || { tail -30 "$log"; exit 1; }
  cp "$(firmware_program sizes "$1")" "$firmware_target/$3"
}
cargo build --locked -p parlor -p parlor-tests --bins || exit 1
running=()
for target in "${targets[@]}"; do
  [ "$target" = thumbv7m-none-eabi ] || variants=("${fewer[@]}")
  runs=()
  for variant in "${variants[@]}"; do
    build "$target" "$variant" "stack-$target-$variant" "${board[$target]}"
    runs+=("$variant=$firmware_target/stack-$target-$variant")
    build "$target" "$variant" "size-$target-$variant"
    echo "size $target $variant $firmware_target/size-$target-$variant" >>"$measured"
  done
  # The programs of one target run while those of the next are built.
  PARLOR_BIN=$PWD/target/debug/parlor target/debug/stack "${board[$target]}" "${runs[@]}" >"$log.$target" &
  running+=($!)
done
failed=0
for one in "${running[@]}"; do wait "$one" || failed=1; done
[ "$failed" = 0 ] || exit 1
for target in "${targets[@]}"; do
  while read -r variant stack; do echo "stack $target $variant $stack" >>"$measured"; done <"$log.$target"
done
python3 firmware-examples/sizes.py "$firmware_with" "$write" <"$measured"
