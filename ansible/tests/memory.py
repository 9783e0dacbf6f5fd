"""What a test and all that it started take of memory: memory.py PID RESULT_FILE, until that process is gone or this one is told to stop.

Counted by the proportional share, so that what processes have in common counts once. The file always has the peaks so far, as JSON in MiB:
of all at once, and of one program named mailraft."""

import collections
import json
import pathlib
import signal
import sys
import time

PERIOD_S = 5


def processes():
    """Children by their parent, and names by their process."""
    children, names = collections.defaultdict(list), {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # it ended meanwhile
            continue
        name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
        pid = int(stat.parent.name)
        children[int(rest[1])].append(pid)
        names[pid] = name
    return children, names


def share_kib(pid):
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main():
    first, result = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    all_kib = node_kib = 0
    while pathlib.Path(f"/proc/{first}").exists():
        children, names = processes()
        found = [first]
        for pid in found:
            found += children[pid]
        shares = {pid: share_kib(pid) for pid in found}
        all_kib = max(all_kib, sum(shares.values()))
        node_kib = max([node_kib] + [shares[pid] for pid in found if names.get(pid) == "mailraft"])
        result.write_text(json.dumps({"all_mib": all_kib // 1024, "node_mib": node_kib // 1024}))
        time.sleep(PERIOD_S)


main()
