"""Python's imaplib against a cluster, after smtp.py: every command of IMAP4rev1 that a mail program uses."""
import imaplib
import json
import ssl
import sys
import time

cluster = json.load(open(sys.argv[1]))
context = ssl.create_default_context(cafile=cluster["ca_cert"])
bob = cluster["accounts"][1]
imaplib._MAXLINE = 10_000_000


def port(node, service):
    return int(cluster["nodes"][node][service].rsplit(":", 1)[1])


def ok(answer):
    assert answer[0] == "OK", answer
    return answer[1]


plain = imaplib.IMAP4("localhost", port(1, "imap"))
assert "LOGINDISABLED" in plain.capabilities and "STARTTLS" in plain.capabilities
plain.starttls(ssl_context=context)
ok(plain.authenticate("PLAIN", lambda _: f"\0{bob['address']}\0{bob['password']}".encode()))
plain.logout()

m = imaplib.IMAP4_SSL("localhost", port(2, "imaps"), ssl_context=context)
try:
    m.login(bob["address"], "wrong")
    raise SystemExit("a wrong password logged in")
except imaplib.IMAP4.error as e:
    assert "AUTHENTICATIONFAILED" in str(e), e
ok(m.login(bob["address"], bob["password"]))
folders = b"\n".join(ok(m.list()))
for name, use in [(b"Drafts", b"\\Drafts"), (b"Sent", b"\\Sent"), (b"Junk", b"\\Junk"), (b"Trash", b"\\Trash"), (b"Archive", b"\\Archive")]:
    line = [l for l in folders.split(b"\n") if b'"' + name + b'"' in l]
    assert line and use in line[0], (name, folders)
assert len(ok(m.lsub())) == 6

count = int(ok(m.select("INBOX"))[0])
_, data = m.search(None, "ALL")
assert len(data[0].split()) == count
for subject in ["starttls", "tls", "detail", "large"]:
    assert ok(m.search(None, "SUBJECT", subject))[0], subject
assert len(ok(m.search(None, "SUBJECT", '"from elsewhere by python"'))[0].split()) == 1, "a repeated delivery is there twice"
number = ok(m.search(None, "SUBJECT", "starttls"))[0].split()[0].decode()
message = ok(m.fetch(number, "(RFC822)"))[0][1]
assert b"\r\n\r\n.\r\n..\r\nhello\r\n" in message, message
assert message.startswith(b"Return-Path: <alice@example.test>\r\nReceived: by "), message
assert b"\\Seen" in ok(m.fetch(number, "(FLAGS)"))[0]
large = ok(m.search(None, "SUBJECT", "large"))[0].split()[0].decode()
body = ok(m.fetch(large, "(BODY.PEEK[TEXT])"))[0][1]
assert body == b"0123456789abcde\r\n" * 200_000, len(body)
part = ok(m.fetch(large, "(BODY.PEEK[TEXT]<1700000.17>)"))[0][1]
assert part == b"0123456789abcde\r\n", part
assert ok(m.search(None, "LARGER", "3000000"))[0] == large.encode()
envelope = ok(m.fetch(large, "(ENVELOPE BODYSTRUCTURE INTERNALDATE RFC822.SIZE)"))[0]
assert b'"large"' in envelope and b'"TEXT" "PLAIN"' in envelope, envelope

ok(m.create('"Work/Projekte &- mehr"'))
ok(m.rename('"Work/Projekte &- mehr"', "Work/Neu"))
ok(m.subscribe("Work/Neu"))
ok(m.unsubscribe("Work/Neu"))
answer = m.append("Work/Neu", "(\\Seen $Own)", imaplib.Time2Internaldate(time.time()), b"Subject: appended\r\n\r\nx\r\n")
assert b"APPENDUID" in answer[1][0], answer
typ, data = m.append("Nowhere", None, None, b"Subject: no\r\n\r\n")
assert typ == "NO" and b"TRYCREATE" in data[0], data


class Several:
    """Literals one after another, each with what stands before the next (MULTIAPPEND)."""

    def __init__(self, messages):
        self.left = [b"%s%s" % (message, behind) for message, behind in zip(messages, self.between(messages))]

    @staticmethod
    def between(messages):
        return [b" (\\Seen) {%d}" % len(message) for message in messages[1:]] + [b""]

    def next(self, _):
        return self.left.pop(0)


def append_several(folder, messages):
    m.literal = Several(messages).next
    return m._simple_command("APPEND", folder, "(\\Flagged)", "{%d}" % len(messages[0]))


assert "MULTIAPPEND" in m.capabilities, m.capabilities
several = [b"Subject: several %d\r\n\r\n%s\r\n" % (n, b"x" * size) for n, size in enumerate([1, 300_000, 70_000, 2])]
answer = append_several("Drafts", several)
assert answer[0] == "OK" and b"APPENDUID" in answer[1][0] and b" 1:4]" in answer[1][0], answer
typ, data = append_several("Nowhere", several)
assert typ == "NO" and b"TRYCREATE" in data[0], data
typ, data = append_several("Drafts", several[:2] + [b"x" * (8 << 20)])
assert typ == "NO" and b"LIMIT" in data[0], data
ok(m.select("Drafts"))
assert [part[1] for part in ok(m.fetch("1:*", "(BODY.PEEK[])")) if isinstance(part, tuple)] == several
assert ok(m.search(None, "FLAGGED")) == [b"1"] and ok(m.search(None, "SEEN")) == [b"2 3 4"]
ok(m.store("1:4", "+FLAGS.SILENT", "(\\Deleted)"))
ok(m.close())

ok(m.select("INBOX"))
answer = m.copy(number, "Work/Neu")
assert b"COPYUID" in answer[1][0], answer
status = ok(m.status("Work/Neu", "(MESSAGES UNSEEN UIDNEXT UIDVALIDITY)"))[0]
assert b"MESSAGES 2" in status and b"UNSEEN 0" in status, status
ok(m.select('"Work/Neu"'))
ok(m.store("1:2", "+FLAGS", "(\\Flagged)"))
uid = ok(m.uid("SEARCH", "FLAGGED"))[0].split()
assert len(uid) == 2
ok(m.uid("STORE", uid[0].decode(), "+FLAGS.SILENT", "(\\Deleted)"))
assert ok(m.expunge()) == [b"1"]
ok(m.noop())
ok(m.close())
ok(m.delete("Work/Neu"))
typ, data = m.select("Work/Neu")
assert typ == "NO", data
typ, data = m.delete("INBOX")
assert typ == "NO", data
ok(m.select("INBOX", readonly=True))
typ, data = m.store("1", "+FLAGS", "(\\Deleted)")
assert typ == "NO", data
ok(m.namespace())
m.logout()
