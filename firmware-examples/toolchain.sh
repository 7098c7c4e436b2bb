# Finds a compiler for a board's target. To be sourced by run.sh and sizes.sh, from the repository's root; then `firmware_build FOLDER TARGET [cargo options]`.
# With rustup the target is added to the installed toolchain. Without it, or where that fails, Debian's rustc builds core and alloc
# once into a sysroot below target/firmware/sysroot. Set PARLOR_FIRMWARE_TOOLCHAIN to rustup or debian to have only one tried.

# FIRMWARE_TARGET: where else to build; two at the same time would wait for each other.
firmware_target=${FIRMWARE_TARGET:-$PWD/target/firmware}
firmware_sysroot=$PWD/target/firmware/sysroot
# Whatever the caller set for the host is not for boards.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET

# Installs Debian packages if it may, else says which are missing.
firmware_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing ${missing[*]}"
    apt-get update -qq >/dev/null 2>&1
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "${missing[@]}" \
      >/dev/null && return 0
  fi
  echo "missing Debian packages: ${missing[*]}; install them (apt-get install ${missing[*]}) and run this again" >&2
  return 1
}

# Both emulators.
firmware_emulators() {
  command -v qemu-system-arm >/dev/null && command -v qemu-system-riscv32 >/dev/null && return 0
  firmware_packages qemu-system-arm qemu-system-misc
}

# Sets firmware_with to rustup or debian, for these targets.
firmware_find() {
  local wanted=${PARLOR_FIRMWARE_TOOLCHAIN:-any} target missing=()
  if [ "$wanted" != debian ] && command -v rustup >/dev/null; then
    for target in "$@"; do
      rustup target list --installed 2>/dev/null | grep -qx "$target" || missing+=("$target")
    done
    if [ ${#missing[@]} = 0 ] || timeout 300 rustup target add "${missing[@]}" >/dev/null 2>&1; then
      firmware_with=rustup
      return 0
    fi
    echo "rustup could not add ${missing[*]}" >&2
  fi
  if [ "$wanted" = rustup ]; then
    echo "rustup has no target ${missing[*]:-$*}: run rustup target add ${missing[*]:-$*}" >&2
    return 1
  fi
  firmware_packages rustc-web rust-web-src lld || return 1
  firmware_with=debian
  for target in "$@"; do
    firmware_make_sysroot "$target" || return 1
  done
}

# core and alloc for one target, once for each version of the compiler.
firmware_make_sysroot() {
  local target=$1 lib=$firmware_sysroot/lib/rustlib/$1/lib work=$firmware_sysroot/build mark
  mark=$(/usr/bin/rustc -V)
  [ "$(cat "$lib/made-by" 2>/dev/null)" = "$mark" ] && return 0
  echo "building core and alloc for $target"
  # A second libcore in a sysroot is an error to the compiler: what an earlier version left goes.
  rm -rf "$work" "$lib"
  mkdir -p "$work/src" "$lib"
  printf '[package]\nname = "sysroot"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n' >"$work/Cargo.toml"
  printf '#![no_std]\n' >"$work/src/lib.rs"
  (cd "$work" && RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes CARGO_TARGET_DIR="$work/target" \
    cargo build --release -q -Zbuild-std=core,alloc -Zbuild-std-features=compiler-builtins-mem --target "$target") || return 1
  cp "$work/target/$target/release/deps"/lib{core,alloc,compiler_builtins}-*.rlib "$lib/" || return 1
  rm -rf "$work"
  echo "$mark" >"$lib/made-by"
}

# Sets the environment in which cargo builds for a target: firmware_settings TARGET.
firmware_settings() {
  local target=$1 upper
  settings=(CARGO_TARGET_DIR="$firmware_target")
  if [ "$firmware_with" = debian ]; then
    upper=$(echo "$target" | tr 'a-z.-' 'A-Z__')
    settings+=(RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 "CARGO_TARGET_${upper}_LINKER=ld.lld"
      "CARGO_TARGET_${upper}_RUSTFLAGS=--sysroot $firmware_sysroot" "CARGO_TARGET_DIR=$firmware_target/debian")
  fi
}

# Builds a board's workspace: firmware_build FOLDER TARGET [cargo options].
firmware_build() {
  local folder=$1 target=$2 settings
  shift 2
  firmware_settings "$target"
  # What a template makes has no versions of its own yet.
  local locked=(--locked)
  [[ $folder = firmware-examples/* ]] || locked=()
  # From within: cargo reads .cargo/config.toml of the folder it is in.
  (cd "$folder" && env "${settings[@]}" cargo build --release ${locked[@]+"${locked[@]}"} --target "$target" "$@")
}

# Checks a crate of the repository without its default features, warnings denied: firmware_check FOLDER TARGET [cargo options].
firmware_check() {
  local folder=$1 target=$2 settings
  shift 2
  firmware_settings "$target"
  (cd "$folder" && env "${settings[@]}" cargo rustc --lib --release --locked --no-default-features --target "$target" "$@" -- -D warnings)
}

# Where the program of a board is: firmware_program NAME TARGET.
firmware_program() {
  [ "$firmware_with" = debian ] && echo "$firmware_target/debian/$2/release/$1" || echo "$firmware_target/$2/release/$1"
}
