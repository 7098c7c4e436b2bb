"""A line between two network interfaces that loses packets and takes its time: what `tc netem` does where the kernel has it.

link.py NAME_A NAME_B LOSS_PERCENT DELAY_MS SEED

Makes two TUN devices, says `ready`, and carries IP packets between them, each way with this loss and delay, until its
standard input ends. Whoever started it gives the devices their namespaces and addresses.
"""

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
# Packets on the way in one direction: half a second at 10,000 a second.
QUEUE_MAX = 5_000


def device(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def write(fd, packet):
    try:
        os.write(fd, packet)
    except OSError:
        # A device that is not up, or full, loses it.
        pass


def main():
    name_a, name_b, loss, delay, seed = sys.argv[1:]
    loss, delay = float(loss) / 100, float(delay) / 1000
    chance = random.Random(int(seed))
    ends = device(name_a), device(name_b)
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    print("ready", flush=True)
    queue = deque()
    while True:
        wait = None
        if queue:
            wait = max(0.0, queue[0][0] - time.monotonic())
        readable, _, _ = select.select([*ends, sys.stdin], [], [], wait)
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, fd, packet = queue.popleft()
            write(fd, packet)
        for fd in readable:
            if fd is sys.stdin:
                return
            # A few at a time, so that the other direction and what is due have their turn.
            for _ in range(32):
                try:
                    packet = os.read(fd, 2048)
                except OSError:
                    break
                if chance.random() < loss or len(queue) >= QUEUE_MAX:
                    continue
                if delay:
                    queue.append((now + delay, other[fd], packet))
                else:
                    write(other[fd], packet)


main()
