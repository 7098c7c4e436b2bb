#!/usr/bin/env bash
# Runs a program on an emulated board: qemu.sh an385|virt ELF [NAME=VALUE...]. The values reach the program as its arguments;
# 10.0.2.2 is this machine. With QEMU_MONITOR=PATH the monitor listens at that socket, with QEMU_EXTRA="…" QEMU gets more options.
set -eu
board=${1:?usage: qemu.sh an385|virt ELF [NAME=VALUE...]} elf=${2:?which program?}
shift 2
arguments=enable=on,target=native,arg=fw
for value in "$@"; do arguments+=,arg=$value; done
monitor=(-monitor none)
[ -n "${QEMU_MONITOR:-}" ] && monitor=(-monitor "unix:$QEMU_MONITOR,server,nowait")
common=(-nographic -serial none "${monitor[@]}" -kernel "$elf" -semihosting-config "$arguments")
read -ra extra <<<"${QEMU_EXTRA:-}"
case $board in
  an385) exec qemu-system-arm -M mps2-an385 -nic user,model=lan9118,id=n0 "${common[@]}" "${extra[@]}" ;;
  virt) exec qemu-system-riscv32 -M virt -m 16M -bios none -global virtio-mmio.force-legacy=false \
    -netdev user,id=n0 -device virtio-net-device,netdev=n0 "${common[@]}" "${extra[@]}" ;;
  *) echo "unknown board $board: an385 or virt" >&2; exit 2 ;;
esac
