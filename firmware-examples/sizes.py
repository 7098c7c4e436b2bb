"""Reads the sizes of the programs that sizes.sh has linked, and compares them with sizes.csv."""

import csv
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
BASELINE = HERE / "sizes.csv"
TABLE = HERE / "SIZES.md"
GROWTH = 1.03
# What lies within this many bytes is the linker's business.
NOISE = 64
FLASH, RAM = (".text", ".rodata"), (".data", ".bss")
BEGIN, END = "<!-- sizes begin -->", "<!-- sizes end -->"


def sections(path):
    """Sizes of the sections of an ELF file of 32 bits."""
    elf = path.read_bytes()
    (start,) = struct.unpack_from("<I", elf, 32)
    size, count, names = struct.unpack_from("<HHH", elf, 46)
    header = lambda index: struct.unpack_from("<IIIIIIIIII", elf, start + index * size)
    texts = header(names)[4]
    found = {}
    for index in range(count):
        name, _, _, _, _, length, *_ = header(index)
        end = elf.index(b"\0", texts + name)
        found[elf[texts + name : end].decode()] = length
    return found


def main():
    folder, made_with, write = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "1"
    whole = {}
    for line in sys.stdin:
        target, variant, _ = line.split()
        found = sections(folder / f"size-{target}-{variant}")
        whole[target, variant] = tuple(sum(found.get(name, 0) for name in kind) for kind in (FLASH, RAM))
    costs = {}
    for (target, variant), (flash, ram) in whole.items():
        if variant != "none":
            base = whole[target, "none"]
            costs[target, variant] = (flash - base[0], ram - base[1])
    lines = ["| target | client | flash (.text + .rodata) | RAM (.data + .bss) |", "|---|---|---:|---:|"]
    lines += [f"| {t} | {name(v)} | {flash:,} | {ram:,} |" for (t, v), (flash, ram) in costs.items()]
    print("\n".join(lines))
    if write:
        with BASELINE.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["target", "client", "flash", "ram"])
            rows.writerows([t, v, *cost] for (t, v), cost in costs.items())
        text = TABLE.read_text()
        before, rest = text.split(BEGIN)
        TABLE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + rest.split(END)[1])
        return 0
    if made_with != "rustup":
        print("not compared: the baseline was measured with another compiler")
        return 0
    grown = 0
    with BASELINE.open() as file:
        for row in csv.DictReader(file):
            cost = costs[row["target"], row["client"]]
            for what, before, now in zip(("flash", "RAM"), (int(row["flash"]), int(row["ram"])), cost):
                if now > before * GROWTH and now > before + NOISE:
                    grown += 1
                    print(f"{row['target']} {row['client']}: {what} has grown from {before:,} to {now:,} bytes")
    if grown:
        print("make it smaller, or say why in the commit and run firmware-examples/sizes.sh --write")
    return 1 if grown else 0


def name(variant):
    if variant in ("rust-mqtt", "minimq"):
        return variant
    return "this SDK: " + variant.replace(",", ", ")


sys.exit(main())
