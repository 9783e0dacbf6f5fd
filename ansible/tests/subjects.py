"""The subjects of INBOX, sorted, one a line: subjects.py ADDRESS CA_FILE USER; the password on standard input."""

import imaplib
import socket
import ssl
import sys

HOST = "mail.example.org"
TIMEOUT_S = 30


class Imap(imaplib.IMAP4):
    """IMAPS at an address, with the certificate of a host that no name server knows."""

    def __init__(self, address, ca_file):
        self.address, self.tls = address, ssl.create_default_context(cafile=ca_file)
        super().__init__(HOST, 993, TIMEOUT_S)

    def _create_socket(self, timeout):
        plain = socket.create_connection((self.address, 993), timeout)
        return self.tls.wrap_socket(plain, server_hostname=HOST)


def main():
    address, ca_file, user = sys.argv[1:]
    imap = Imap(address, ca_file)
    imap.login(user, sys.stdin.readline().rstrip("\n"))
    _, [count] = imap.select("INBOX", readonly=True)
    lines = []
    if int(count) > 0:
        _, answer = imap.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        lines = [part[1].decode().strip() for part in answer if isinstance(part, tuple)]
    assert len(lines) == int(count), f"{count.decode()} messages, {len(lines)} subjects"
    imap.logout()
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main()
