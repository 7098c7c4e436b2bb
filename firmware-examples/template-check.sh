#!/usr/bin/env bash
# Fills in the template as cargo generate would, with this repository's crates, into the folder given: template-check.sh FOLDER.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?into which folder?}
mkdir -p "$folder/src" "$folder/.cargo"
fill() {
  sed -e 's/{{project-name}}/my-device/g' -e 's/{{chip}}/esp32c3/g' \
    -e 's/{% if chip == "esp32c3" %}\(.*\){% elsif.*/\1/' \
    -e "s|parlor-device = { git = \"{{parlor}}\"|parlor-device = { path = \"$here/../device-sdk\"|" \
    -e "s|parlor-boot = { git = \"{{parlor}}\"|parlor-boot = { path = \"$here/boot\"|" \
    -e "s|parlor-esp = { git = \"{{parlor}}\"|parlor-esp = { path = \"$here/esp\"|" \
    -e "s|\(parlor-[a-z]*\) = { git = \"{{parlor}}\" }|\1 = { path = \"$here/X\1\" }|" \
    -e "s|Xparlor-||" "$here/template/$1"
}
for file in Cargo.toml build.rs src/main.rs src/device.rs .cargo/config.toml partitions.csv; do
  fill "$file" >"$folder/new" && { cmp -s "$folder/new" "$folder/$file" || cp "$folder/new" "$folder/$file"; }
done
rm "$folder/new"
cp "$here/boards/esp32c3/Cargo.lock" "$folder/Cargo.lock"
