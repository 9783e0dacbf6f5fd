#!/usr/bin/env python3
"""Prints which TCP ports of a host take a connection, as JSON: open-ports.py [--from ADDRESS] HOST PORT... A port may be a range, 1-65535."""

import argparse
import asyncio
import json

PATIENCE_S = 3
# Connections under way: less than a process may have open files.
AT_ONCE_MAX = 500


async def is_open(host, port, source, turns):
    async with turns:
        try:
            local = (source, 0) if source else None
            _, writer = await asyncio.wait_for(asyncio.open_connection(host, port, local_addr=local), PATIENCE_S)
        except (OSError, asyncio.TimeoutError):
            return False
        writer.close()
        return True


def ports(text):
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source")
    parser.add_argument("host")
    parser.add_argument("ports", nargs="+", type=ports)
    call = parser.parse_args()
    asked = sorted({port for some in call.ports for port in some})
    turns = asyncio.Semaphore(AT_ONCE_MAX)
    found = await asyncio.gather(*(is_open(call.host, port, call.source, turns) for port in asked))
    print(json.dumps([port for port, there in zip(asked, found) if there]))


asyncio.run(main())
