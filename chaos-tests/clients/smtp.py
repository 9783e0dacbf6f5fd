"""Python's smtplib against a cluster: deliveries that work and refusals that say why."""
import json
import smtplib
import ssl
import sys

cluster = json.load(open(sys.argv[1]))
context = ssl.create_default_context(cafile=cluster["ca_cert"])
alice, bob = cluster["accounts"]


def port(node, service):
    return int(cluster["nodes"][node][service].rsplit(":", 1)[1])


def refused(code, action):
    try:
        action()
    except smtplib.SMTPRecipientsRefused as e:
        got = list(e.recipients.values())[0][0]
    except smtplib.SMTPResponseException as e:
        got = e.smtp_code
    else:
        raise SystemExit(f"not refused, {code} expected")
    assert got == code, (got, code)


# Submission with STARTTLS, and over TLS from the start.
with smtplib.SMTP("localhost", port(0, "submission")) as s:
    s.ehlo()
    assert "auth" not in s.esmtp_features, "AUTH is offered in clear"
    refused(530, lambda: s.sendmail(alice["address"], [bob["address"]], "Subject: no\r\n\r\n"))
    s.starttls(context=context)
    refused(535, lambda: s.login(alice["address"], "wrong"))
with smtplib.SMTP("localhost", port(0, "submission")) as s:
    s.starttls(context=context)
    s.login(alice["address"], alice["password"])
    s.sendmail(alice["address"], [bob["address"]], "Subject: starttls\r\n\r\n.\r\n..\r\nhello\r\n")
with smtplib.SMTP_SSL("localhost", port(1, "submissions"), context=context) as s:
    s.login(alice["address"], alice["password"])
    s.sendmail(alice["address"], [bob["address"]], b"Subject: tls\r\n\r\n8bit \xc3\xa4\r\n", mail_options=["BODY=8BITMIME"])
    refused(550, lambda: s.sendmail(alice["address"], ["someone@elsewhere.test"], "Subject: no\r\n\r\n"))
    s.sendmail(alice["address"], ["bob+anything@example.test"], "Subject: detail\r\n\r\nx\r\n")

# From another server: unknown recipients, relaying, size.
with smtplib.SMTP("localhost", port(2, "smtp")) as s:
    s.ehlo()
    for feature in ["pipelining", "size", "8bitmime", "enhancedstatuscodes", "starttls"]:
        assert s.has_extn(feature), feature
    refused(550, lambda: s.sendmail("x@elsewhere.test", ["nobody@example.test"], "Subject: no\r\n\r\n"))
    refused(550, lambda: s.sendmail("x@elsewhere.test", ["x@elsewhere.test"], "Subject: no\r\n\r\n"))
    limit = int(s.esmtp_features["size"])
    s.ehlo()
    assert s.mail("x@elsewhere.test", [f"SIZE={limit + 1}"])[0] == 552
    s.rset()
    code, reply = s.docmd("MAIL", "FROM:<x@elsewhere.test>")
    assert code == 250
    assert s.rcpt(bob["address"])[0] == 250
    assert s.rcpt(alice["address"])[0] == 250, "one message may go to several"
    s.rset()
    s.mail("x@elsewhere.test")
    s.rcpt(bob["address"])
    code, reply = s.data("Subject: from elsewhere by python\r\nMessage-ID: <once@elsewhere.test>\r\n\r\nx\r\n")
    assert code == 250 and b"id=" in reply and b"at=" in reply, reply
    # Whoever did not hear the 250 sends again: nothing is stored twice, and the answer is the first one's place.
    s.mail("x@elsewhere.test")
    s.rcpt(bob["address"])
    again = s.data("Subject: from elsewhere by python\r\nMessage-ID: <once@elsewhere.test>\r\n\r\nx\r\n")
    assert again[0] == 250, again

# A message of many chunks.
with smtplib.SMTP_SSL("localhost", port(2, "submissions"), context=context) as s:
    s.login(alice["address"], alice["password"])
    s.sendmail(alice["address"], [bob["address"]], "Subject: large\r\n\r\n" + "0123456789abcde\r\n" * 200_000)
