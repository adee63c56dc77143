"""A transmitter of security event tokens, written from the specifications alone (RFC 8417, RFC 8935, RFC 8936, RFC 9493,
OpenID SSF 1.0 and CAEP 1.0) with PyJWT and the standard library; it shares no code with Countersign.

    transmitter.py serve PORT   metadata, keys, stream management, verification and polling on loopback
    then, on standard input, one JSON object a line:
      {"send": URI, "subject": {…}, "claims": {…}}   an event, to whatever way the stream has; answers its jti
      {"status": true}                               what was acknowledged and refused so far
      {"hold": true}                                 no answer to a poll until it is told `false`
      {"forget": true}                               its streams, as one whose database was lost
"""

import json
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

MANAGEMENT = "Bearer management-token"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
PUSH, POLL = "urn:ietf:rfc:8935", "urn:ietf:rfc:8936"


class Transmitter:
    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        self.issuer = self.base
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.streams = {}
        self.waiting, self.acknowledged, self.errors, self.pushed = {}, [], {}, {}
        self.asked, self.held = [], False
        self.change = threading.Condition()

    def metadata(self):
        return {
            "spec_version": "1_0",
            "issuer": self.issuer,
            "jwks_uri": f"{self.base}/jwks",
            "delivery_methods_supported": [PUSH, POLL],
            "configuration_endpoint": f"{self.base}/streams",
            "verification_endpoint": f"{self.base}/verify",
            "critical_subject_members": ["tenant"],
        }

    def jwks(self):
        jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        jwk.pop("key_ops", None)
        return {"keys": [{**jwk, "kid": "one", "use": "sig", "alg": "RS256"}]}

    def create(self, wanted):
        # Long enough that whoever looks at the same time finds nothing yet.
        time.sleep(0.5)
        stream = {
            "stream_id": uuid.uuid4().hex,
            "iss": self.issuer,
            "aud": "countersign",
            "events_supported": wanted["events_requested"],
            "events_requested": wanted["events_requested"],
            "events_delivered": wanted["events_requested"],
            "delivery": dict(wanted["delivery"]),
        }
        if stream["delivery"]["method"] == POLL:
            stream["delivery"]["endpoint_url"] = f"{self.base}/poll"
        self.streams[stream["stream_id"]] = stream
        return stream

    def token(self, uri, subject, claims):
        jti = uuid.uuid4().hex
        payload = {
            "iss": self.issuer,
            "aud": "countersign",
            "jti": jti,
            "iat": int(time.time()),
            "txn": uuid.uuid4().hex,
            "sub_id": subject,
            "events": {uri: claims},
        }
        headers = {"typ": "secevent+jwt", "kid": "one"}
        return jti, jwt.encode(payload, self.key, algorithm="RS256", headers=headers)

    def send(self, uri, subject, claims):
        jti, token = self.token(uri, subject, claims)
        delivery = next(iter(self.streams.values()))["delivery"]
        if delivery["method"] == POLL:
            with self.change:
                self.waiting[jti] = token
                self.change.notify_all()
        else:
            self.push(delivery, jti, token)
        return jti

    def push(self, delivery, jti, token):
        headers = {"Content-Type": "application/secevent+jwt", "Accept": "application/json"}
        if "authorization_header" in delivery:
            headers["Authorization"] = delivery["authorization_header"]
        request = urllib.request.Request(delivery["endpoint_url"], token.encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 202 and answer.read() == b"", answer.status
                self.pushed[jti] = 202
                self.acknowledged.append(jti)
        except urllib.error.HTTPError as error:
            self.pushed[jti] = error.code
            self.errors[jti] = json.loads(error.read())

    def poll(self, asked):
        with self.change:
            for jti in asked.get("ack", []):
                if self.waiting.pop(jti, None):
                    self.acknowledged.append(jti)
            for jti, error in asked.get("setErrs", {}).items():
                self.waiting.pop(jti, None)
                self.errors[jti] = error
            if not asked.get("returnImmediately", False) and not self.waiting:
                self.change.wait(timeout=20)
            while self.held:
                self.change.wait(timeout=20)
            self.asked.append(asked.get("maxEvents"))
            count = asked.get("maxEvents", 100)
            chosen = dict(list(self.waiting.items())[:count])
            return {"sets": chosen, "moreAvailable": len(self.waiting) > len(chosen)}


def handler(transmitter):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, status, body=None):
            text = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def managed(self):
            if self.headers.get("Authorization") == MANAGEMENT:
                return True
            self.answer(401, {"error": "unauthorized"})
            return False

        def do_GET(self):
            if self.path == "/.well-known/ssf-configuration":
                self.answer(200, transmitter.metadata())
            elif self.path == "/jwks":
                self.answer(200, transmitter.jwks())
            elif self.path == "/streams" and self.managed():
                self.answer(200, list(transmitter.streams.values()))
            elif self.path != "/streams":
                self.answer(404)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            if not self.managed():
                return
            if self.path == "/streams":
                self.answer(201, transmitter.create(body))
            elif self.path == "/verify" and body["stream_id"] not in transmitter.streams:
                self.answer(404)
            elif self.path == "/poll" and not transmitter.streams:
                self.answer(404)
            elif self.path == "/verify":
                subject = {"format": "opaque", "id": body["stream_id"]}
                self.answer(204)
                transmitter.send(VERIFICATION, subject, {"state": body["state"]})
            elif self.path == "/poll":
                self.answer(200, transmitter.poll(body))
            else:
                self.answer(404)

    return Handler


def main():
    port = int(sys.argv[2])
    transmitter = Transmitter(port)
    server = ThreadingHTTPServer(("127.0.0.1", port), handler(transmitter))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "send" in asked:
            told = {"jti": transmitter.send(asked["send"], asked["subject"], asked["claims"])}
        elif "forget" in asked:
            with transmitter.change:
                transmitter.streams.clear()
                transmitter.change.notify_all()
            told = {}
        elif "hold" in asked:
            with transmitter.change:
                transmitter.held = asked["hold"]
                transmitter.change.notify_all()
            told = {}
        elif "junk" in asked:
            # What some transmitters put among the tokens of an answer.
            with transmitter.change:
                transmitter.waiting[asked["junk"]] = {"not": "a token"}
            told = {}
        else:
            told = {
                "streams": list(transmitter.streams.values()),
                "acknowledged": transmitter.acknowledged,
                "errors": transmitter.errors,
                "waiting": list(transmitter.waiting),
                "asked": transmitter.asked,
            }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
