"""Takes reports about TLS over HTTPS, as RFC 8460, section 3, has them posted, with Python's own server: prints its port, and then
a line of JSON for each that it takes. Its certificate with what stands behind it, and its key, are its arguments."""

import gzip
import http.server
import json
import ssl
import sys


class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.end_headers()
        report = json.loads(gzip.decompress(body))
        print(json.dumps({
            "path": self.path,
            "host": self.headers["Host"],
            "type": self.headers["Content-Type"],
            "tls": self.connection.version(),
            "id": report["report-id"],
            "policies": [
                [policy["policy"]["policy-domain"], policy["summary"]["total-failure-session-count"]]
                for policy in report["policies"]
            ],
        }), flush=True)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
