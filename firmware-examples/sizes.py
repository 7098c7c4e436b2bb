"""Reads the sizes of the programs that sizes.sh has linked, and how deep their stacks were, and compares them with sizes.csv."""

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
# An interrupt may come at the deepest place, or not.
INTERRUPT = 256
# What static memory begins with lies in flash as well.
FLASH, RAM = (".text", ".rodata", ".data"), (".data", ".bss")
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
    made_with, write = sys.argv[1], sys.argv[2] == "1"
    whole, stack = {}, {}
    for line in sys.stdin:
        kind, target, variant, what = line.split(maxsplit=3)
        if kind == "stack":
            stack[target, variant] = int(what)
            continue
        found = sections(Path(what.strip()))
        whole[target, variant] = tuple(sum(found.get(name, 0) for name in kind) for kind in (FLASH, RAM))
    costs = {}
    for (target, variant), (flash, ram) in whole.items():
        if variant != "none":
            base = whole[target, "none"]
            deeper = max(0, stack[target, variant] - stack[target, "none"])
            costs[target, variant] = {"flash": flash - base[0], "ram": ram - base[1], "stack": deeper}
    lines = ["| target | client | flash | static RAM | stack | RAM |", "|---|---|---:|---:|---:|---:|"]
    for (target, variant), cost in costs.items():
        deeper = cost["stack"]
        lines.append(f"| {target} | {name(variant)} | {cost['flash']:,} | {cost['ram']:,} | {deeper:,} | {cost['ram'] + deeper:,} |")
    print("\n".join(lines))
    if write:
        with BASELINE.open("w", newline="") as file:
            rows = csv.DictWriter(file, ["target", "client", "flash", "ram", "stack"], lineterminator="\n")
            rows.writeheader()
            rows.writerows({"target": t, "client": v, **cost} for (t, v), cost in costs.items())
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
            for what, noise in (("flash", NOISE), ("ram", NOISE), ("stack", INTERRUPT)):
                if cost[what] > max(int(row[what]) * GROWTH, int(row[what]) + noise):
                    grown += 1
                    print(f"{row['target']} {row['client']}: {what} has grown from {row[what]} to {cost[what]} bytes")
    if grown:
        print("make it smaller, or say why in the commit and run firmware-examples/sizes.sh --write")
    return 1 if grown else 0


def name(variant):
    if variant in ("rust-mqtt", "minimq"):
        return variant
    return "this SDK: " + variant.replace(",", ", ")


sys.exit(main())
