"""Python's poplib against a cluster: alice's maildrop through every node."""
import json
import poplib
import smtplib
import ssl
import sys

cluster = json.load(open(sys.argv[1]))
context = ssl.create_default_context(cafile=cluster["ca_cert"])
alice, bob = cluster["accounts"]
poplib._MAXLINE = 10_000_000


def port(node, service):
    return int(cluster["nodes"][node][service].rsplit(":", 1)[1])


def refused(code, action):
    try:
        action()
    except poplib.error_proto as e:
        assert str(e).startswith(f"b'-ERR {code}"), e
    else:
        raise SystemExit(f"not refused, {code} expected")


def login(node):
    p = poplib.POP3_SSL("localhost", port(node, "pop3s"), context=context)
    p.user(alice["address"])
    p.pass_(alice["password"])
    return p


texts = [b"Subject: first\r\n\r\n.\r\n..\r\nhello\r\n", b"Subject: large\r\n\r\n" + b".123456789abcde\r\n" * 100_000, b"Subject: third\r\n\r\nx\r\n"]
with smtplib.SMTP_SSL("localhost", port(0, "submissions"), context=context) as s:
    s.login(bob["address"], bob["password"])
    for text in texts:
        s.sendmail(bob["address"], [alice["address"]], text)

# Nobody logs in without TLS, and nothing shows that one could.
p = poplib.POP3("localhost", port(0, "pop3"))
before = p.capa()
assert "STLS" in before and "USER" not in before and "SASL" not in before, before
refused("say STLS first", lambda: p.user(alice["address"]))
p.stls(context=context)
after = p.capa()
assert "STLS" not in after and "USER" in after and after["SASL"] == ["PLAIN", "LOGIN"], after
p.user(alice["address"])
refused("[AUTH]", lambda: p.pass_("wrong"))
p.user(alice["address"])
p.pass_(alice["password"])

count, octets = p.stat()
assert count == 3, count
sizes = [int(line.split()[1]) for line in p.list()[1]]
assert sum(sizes) == octets
for number, text in enumerate(texts, 1):
    _, lines, heard = p.retr(number)
    message = b"".join(line + b"\r\n" for line in lines)
    assert message.endswith(text[text.index(b"\r\n\r\n"):]) and b"\r\nSubject: " in message, message[:500]
    # The octets as they are sent, before dots are doubled.
    assert len(message) == sizes[number - 1], (len(message), sizes)
head = p.top(2, 1)[1]
assert head[-2:] == [b"", b".123456789abcde"], head[-3:]

# One session has the maildrop, on whatever node another one tries; unique ids are the same everywhere.
refused("[IN-USE]", lambda: login(1))
ids = p.uidl()[1]
p.dele(1)
refused("this message is marked", lambda: p.retr(1))
p.rset()
p.dele(3)
assert p.stat()[0] == 2
# Who breaks off removes nothing.
p.close()
p = login(1)
assert p.uidl()[1] == ids and len({line.split()[1] for line in ids}) == 3, ids
p.dele(1)
p.quit()
p = login(2)
assert [line.split()[1] for line in p.uidl()[1]] == [line.split()[1] for line in ids[1:]]
p.quit()
