#!/usr/bin/env python3
"""Prints which TCP ports of a host take a connection, as JSON: open-ports.py HOST PORT..."""

import asyncio
import json
import sys

PATIENCE_S = 3


async def is_open(host, port):
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), PATIENCE_S)
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return True


async def main():
    host, ports = sys.argv[1], sorted({int(port) for port in sys.argv[2:]})
    found = await asyncio.gather(*(is_open(host, port) for port in ports))
    print(json.dumps([port for port, there in zip(ports, found) if there]))


asyncio.run(main())
