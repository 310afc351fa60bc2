"""A back end that creates uploads for its own users.

    pip install -r examples/python-service/requirements.txt
    BROKER=https://eu.uploads.example.com KEY_FILE=service.pem PORT=8000 python examples/python-service/service.py

The key is made if there is none yet.

The broker trusts tokens that this service signs:

    [[issuers]]
    issuer = "https://service.example.com"
    audiences = ["upload-broker"]
    jwks_url = "https://service.example.com/jwks.json"
    algorithms = ["ES256"]
    max_lifetime = "5m"

In place of jwks_url, jwks_file takes what `service.py --jwks` prints.

Its users never see such a token. They ask the service, which decides what they may upload, and get a transfer: the address
to send the bytes to, good for this one object. Quotas and ownership are the user's, since each token names its user.
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

BROKER = os.environ.get("BROKER", "http://127.0.0.1:8080")
ISSUER = os.environ.get("ISSUER", "https://service.example.com")
#: The users that are signed in, by their session. A real service has its own way to know.
SESSIONS = {"session-of-ada": "ada", "session-of-bob": "bob"}
LARGEST_REQUEST = 16 * 1024



def read_or_make(path):
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    return serialization.load_pem_private_key(path.read_bytes(), password=None)


KEY = read_or_make(Path(os.environ.get("KEY_FILE", "service.pem")))
#: What brokers check tokens with. Whoever changes the key announces the next one here before it signs.
PUBLIC = jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
KEY_SET = {"keys": [PUBLIC | {"kid": "1", "alg": "ES256", "use": "sig"}]}


def token(user):
    """A token in the name of the user, for the one call that follows."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "upload-broker", "sub": user, "iat": now, "exp": now + 60}
    return jwt.encode(claims, KEY, algorithm="ES256", headers={"kid": "1"})


def call(user, method, path, body=None, headers=None):
    """Calls the broker as the user. Returns the status and the document, which is a problem where the status says so."""
    headers = {"authorization": f"Bearer {token(user)}"} | (headers or {})
    if body is not None:
        headers["content-type"] = "application/json"
        body = json.dumps(body).encode()
    request = urllib.request.Request(BROKER + path, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, read(answer)
    except urllib.error.HTTPError as answer:
        try:
            return answer.code, read(answer)
        except ValueError:
            # A proxy answered in the broker's place.
            return 502, problem("broker-unavailable", f"the broker's proxy answered {answer.code}")
    except ValueError:
        return 502, problem("broker-unavailable", "what answered is no broker")
    except (OSError, http.client.HTTPException):
        # What a user may do again, with the same idempotency key.
        return 503, problem("broker-unreachable", "the broker cannot be reached")


def read(answer):
    document = json.load(answer)
    if not isinstance(document, dict) or not ("code" in document or "id" in document):
        raise ValueError("neither an upload nor a problem")
    return document


def problem(code, detail):
    return {"code": code, "detail": detail}


def create(user, wish, key, origin):
    """What the user may upload is this service's to say; here it is pictures into an album of theirs."""
    order = {
        "policy": "pictures",
        "filename": wish["filename"],
        "content_type": wish["content_type"],
        "size_bytes": wish["size_bytes"],
        "metadata": {"album": str(wish.get("album", "none"))},
    }
    headers = {"idempotency-key": key} if key else {}
    if origin:
        # A session answers the web page that it was created for, and no other.
        headers["origin"] = origin
    status, upload = call(user, "POST", "/v1/uploads", order, headers)
    if status != 201:
        return status, {"error": upload["code"], "detail": upload.get("detail", "")}
    return status, {"id": upload["id"], "transfer": upload["transfer"]}


def complete(user, upload_id):
    """The user says that the bytes are sent; the broker looks. Somebody else's upload is 404, by the user in the token."""
    status, upload = call(user, "POST", f"/v1/uploads/{upload_id}/complete")
    if status != 200:
        return status, {"error": upload["code"], "detail": upload.get("detail", "")}
    return status, {"id": upload["id"], "state": upload["state"], "object": upload["object"]}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(*((200, KEY_SET) if self.path == "/jwks.json" else (404, {"error": "not-found"})))

    def do_POST(self):
        user = SESSIONS.get(self.headers.get("authorization", "").removeprefix("Session "))
        length = self.headers.get("content-length", "0")
        if user is None:
            return self.answer(401, {"error": "signed-out"})
        if not (length.isascii() and length.isdigit()):
            # Without a length nobody knows where the next request begins.
            self.close_connection = True
            return self.answer(400, {"error": "invalid-request"})
        if int(length) > LARGEST_REQUEST:
            self.close_connection = True
            return self.answer(413, {"error": "too-large"})
        body = self.rfile.read(int(length))
        match self.path.strip("/").split("/"):
            case ["uploads"]:
                try:
                    wish = json.loads(body)
                    answer = create(user, wish, self.headers.get("idempotency-key"), self.headers.get("origin"))
                except (ValueError, KeyError, TypeError):
                    answer = 400, {"error": "invalid-request"}
            case ["uploads", upload_id, "complete"] if upload_id.isalnum():
                answer = complete(user, upload_id)
            case _:
                answer = 404, {"error": "not-found"}
        self.answer(*answer)

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        # A transfer is a secret of its user.
        self.send_header("cache-control", "no-store")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if "--jwks" in sys.argv:
        print(json.dumps(KEY_SET))
        sys.exit()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler)
    print(f"listening: {server.server_address[1]}", flush=True)
    server.serve_forever()
