#!/usr/bin/env bash
# Builds the firmware and runs it on both emulated boards, with either wire, against a real broker; tries updates through the boot loaders on a flash
# in memory and on an emulated board; links every other board that can be linked here, and its boot loader; builds the SDK with many combinations of
# features; measures.
# Needs Rust. What else is missing it installs when it may, or names. Options: --no-boards (none is linked but the emulated ones), --no-sizes.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

boards=1
sizes=1
while [ $# -gt 0 ]; do
  case "$1" in
    --no-boards) boards=0; shift ;;
    --no-sizes) sizes=0; shift ;;
    *) echo "unknown option $1; see the first lines of $0" >&2; exit 2 ;;
  esac
done

# NAME TARGET of boards that are linked and cannot be run here.
linked=(
  "esp32c3 riscv32imc-unknown-none-elf"
  "pico-w thumbv6m-none-eabi"
  "nrf52840-w5500 thumbv7em-none-eabihf"
  "nucleo-f767zi thumbv7em-none-eabihf"
  "esp32c6 riscv32imac-unknown-none-elf"
  "pico2-w thumbv8m.main-none-eabihf"
)
[ "$boards" = 1 ] || linked=()

. firmware-examples/toolchain.sh
firmware_emulators || exit 1
targets=(thumbv7m-none-eabi riscv32imac-unknown-none-elf)
for board in ${linked[@]+"${linked[@]}"}; do targets+=("${board#* }"); done
mapfile -t targets < <(printf '%s\n' "${targets[@]}" | sort -u)
firmware_find "${targets[@]}" || exit 1
echo "firmware is built with $firmware_with"

passed=0
failed=0
# report WORD TEXT
report() {
  echo "$1 $2"
  if [ "$1" = PASS ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
# count FILE: what is reported there counts too.
count() {
  passed=$((passed + $(grep -c '^PASS ' "$1")))
  failed=$((failed + $(grep -c '^FAIL ' "$1")))
}
log=$(mktemp)
beside=$(mktemp)
trap 'rm -f "$log" "$beside"; [ -z "${linking:-}" ] || kill "$linking" 2>/dev/null' EXIT

# Everything that is only built, in a folder of its own, beside what runs.
build_only() {
  firmware_target=$firmware_target/linked
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  # Linking asks for no secret that opens anything.
  export WIFI_NAME=nowhere WIFI_PASSWORD=not-a-password BROKER_HOST=192.0.2.1 BROKER_PORT=8883 PAIRING_CODE=AAAA-AAAA DEVICE_NAME=lamp
  export BROKER_PIN=0000000000000000000000000000000000000000000000000000000000000000 CYW43_FIRMWARE=none
  export UPDATE_KEY=$BROKER_PIN BROKER_NEXT_PIN=$BROKER_PIN
  for board in ${linked[@]+"${linked[@]}"}; do
    read -r name target <<<"$board"
    if firmware_build "firmware-examples/boards/$name" "$target" >"$log" 2>&1; then
      report PASS "$name links"
    else
      tail -30 "$log"
      report FAIL "$name links"
    fi
    if [ "$name" = nrf52840-w5500 ]; then
      # What a probe would show is in the program's table of lines.
      if grep -aq '"package":"parlor-device","tag":"defmt_info","data":"online"' "$(firmware_program "$name" "$target")"; then
        report PASS "$name has the SDK's log"
      else
        report FAIL "$name has the SDK's log"
      fi
    fi
    [ -d "firmware-examples/boards/$name/loader" ] || continue
    if firmware_build "firmware-examples/boards/$name" "$target" -p "$name-loader" >"$log" 2>&1; then
      report PASS "the boot loader of $name links"
    else
      tail -30 "$log"
      report FAIL "the boot loader of $name links"
    fi
  done

  if [ "$boards" = 1 ]; then
    firmware-examples/template-check.sh target/firmware/template
    if firmware_build target/firmware/template riscv32imc-unknown-none-elf >"$log" 2>&1; then
      report PASS "a device from the template links"
    else
      tail -30 "$log"
      report FAIL "a device from the template links"
    fi
  fi

  if FIRMWARE_TARGET=$firmware_target firmware-examples/features.sh >"$log" 2>&1; then
    report PASS "the SDK builds with every combination of features that is tried"
  else
    tail -60 "$log"
    report FAIL "the SDK builds with every combination of features"
  fi
}
build_only >"$beside" 2>&1 &
linking=$!

programs=()
for board in "an385 qemu-mps2-an385 thumbv7m-none-eabi" "virt qemu-riscv-virt riscv32imac-unknown-none-elf"; do
  read -r kind name target <<<"$board"
  # Which wire a board speaks is a feature and nothing more.
  for wire in "" native; do
    if firmware_build "firmware-examples/boards/$name" "$target" --features "$wire" >"$log" 2>&1; then
      program=$firmware_target/$name${wire:+-$wire}
      cp "$(firmware_program "$name" "$target")" "$program" || exit 1
      programs+=("$kind${wire:+-$wire}" "$program")
    else
      tail -30 "$log"
      report FAIL "$name is built${wire:+ with the feature $wire}"
    fi
  done
done

cargo build --locked -p parlor -p parlor-tests --bins || exit 1
if [ ${#programs[@]} -gt 0 ]; then
  PARLOR_BIN=$PWD/target/debug/parlor target/debug/firmware "${programs[@]}" 2>&1 | tee "$log"
  count "$log"
fi

# The same board with a boot loader, and four programs for it: image_of NAME [VARIABLE=VALUE...].
image_of() {
  local name=$1
  shift
  (export "$@"; firmware_build firmware-examples/boards/qemu-an385-boot thumbv7m-none-eabi) >"$log" 2>&1 &&
    cp "$(firmware_program qemu-an385-boot thumbv7m-none-eabi)" "$firmware_target/$name"
}
if firmware_build firmware-examples/boards/qemu-an385-boot thumbv7m-none-eabi -p qemu-an385-boot-loader >"$log" 2>&1 &&
  image_of boot-old FIRMWARE_VERSION=1 && image_of boot-new FIRMWARE_VERSION=2-over-the-air &&
  image_of boot-bad FIRMWARE_VERSION=3 FIRMWARE_IS_NO_GOOD=1 && image_of boot-deaf FIRMWARE_VERSION=4 FIRMWARE_IS_DEAF=1; then
  PARLOR_BIN=$PWD/target/debug/parlor target/debug/firmware_boot "$(firmware_program qemu-an385-boot-loader thumbv7m-none-eabi)" \
    "$firmware_target"/boot-{old,new,bad,deaf} 2>&1 | tee "$log"
  count "$log"
else
  tail -30 "$log"
  report FAIL "qemu-an385-boot is built"
fi

# Updates through the boot loaders, with the power cut at every word: on the host, for what is tried is hardware independent.
for part in areas boot; do
  if (cd "firmware-examples/$part" && CARGO_TARGET_DIR="$firmware_target" cargo test --locked --all-features) >"$log" 2>&1; then
    tests=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log" | awk '{ sum += $1 } END { print sum + 0 }')
    report PASS "$part: $tests tests"
  else
    tail -40 "$log"
    report FAIL "$part: its tests"
  fi
done

if [ "$sizes" = 1 ]; then
  if firmware-examples/sizes.sh; then report PASS "no size has grown by more than 3 %"; else report FAIL "no size has grown by more than 3 %"; fi
fi
echo "waiting for what is only built"
wait "$linking" || report FAIL "what is only built was not built to its end"
linking=
cat "$beside"
count "$beside"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
