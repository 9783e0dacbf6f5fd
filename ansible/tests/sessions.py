"""Mail programs that stay connected: sessions.py CA_FILE USER STOP_FILE ADDRESS..., the password on standard input.

One IMAP session with each node looks for mail again and again until the file is gone. A node that stops ends its session, and the program goes
on to the next one. Prints, as JSON, how many commands were answered and how long the longest took in milliseconds, how often a session ended,
and how long the longest was without one."""

import json
import pathlib
import sys
import threading
import time

from subjects import Imap

PAUSE_S = 0.05


class Program(threading.Thread):
    """One mail program: it knows all servers and begins with its own."""

    def __init__(self, addresses, ca_file, user, password, stop):
        super().__init__()
        self.addresses, self.ca_file, self.user, self.password, self.stop = addresses, ca_file, user, password, stop
        self.commands = self.ended = 0
        self.longest_s = self.without_s = 0.0

    def run(self):
        turn, imap, lost_at = 0, None, None
        while self.stop.exists():
            begun = time.monotonic()
            try:
                if imap is None:
                    imap = Imap(self.addresses[turn % len(self.addresses)], self.ca_file)
                    imap.login(self.user, self.password)
                    imap.select("INBOX", readonly=True)
                    if lost_at is not None:
                        self.without_s, lost_at = max(self.without_s, time.monotonic() - lost_at), None
                else:
                    kind, _ = imap.noop()
                    if kind != "OK":
                        raise OSError(kind)
                    self.commands += 1
                    self.longest_s = max(self.longest_s, time.monotonic() - begun)
            except Exception:  # whatever ends a session: BYE, a reset, nobody there
                if imap is not None:
                    self.ended, lost_at = self.ended + 1, begun
                imap, turn = None, turn + 1
            time.sleep(PAUSE_S)


def main():
    ca_file, user, stop, *addresses = sys.argv[1:]
    password = sys.stdin.readline().rstrip("\n")
    programs = [
        Program(addresses[n:] + addresses[:n], ca_file, user, password, pathlib.Path(stop)) for n in range(len(addresses))
    ]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    print(
        json.dumps(
            {
                "commands": sum(p.commands for p in programs),
                "longest_ms": round(max(p.longest_s for p in programs) * 1000),
                "ended": sum(p.ended for p in programs),
                "without_ms": round(max(p.without_s for p in programs) * 1000),
            }
        )
    )


main()
