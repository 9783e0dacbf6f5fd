"""Signs a message with dkimpy, and reads Authentication-Results with authres: both were written by others.

sign.py dkim DOMAIN SELECTOR ALGORITHM KEY_FILE    the message on standard input, signed, on standard output
sign.py arc DOMAIN SELECTOR KEY_FILE               the same, with an ARC set on top
sign.py results                                    a field on standard input: AUTHSERV_ID, and a line for each result
"""
import sys

import authres
import dkim


def main():
    what = sys.argv[1]
    text = sys.stdin.buffer.read()
    if what == "results":
        header = authres.AuthenticationResultsHeader.parse(text.decode("ascii"))
        print(header.authserv_id)
        for result in header.results:
            properties = " ".join(f"{p.type}.{p.name}={p.value}" for p in result.properties)
            print(result.method, result.result, properties)
        return
    domain, selector = sys.argv[2].encode(), sys.argv[3].encode()
    key = open(sys.argv[-1], "rb").read()
    if what == "dkim":
        signed = dkim.sign(text, selector, domain, key, signature_algorithm=sys.argv[4].encode(),
                           canonicalize=(b"relaxed", b"relaxed"), include_headers=[b"from", b"to", b"subject"])
        sys.stdout.buffer.write(signed + text)
    else:
        fields = dkim.arc_sign(text, selector, domain, key, domain)
        sys.stdout.buffer.write(b"".join(fields) + text)


main()
