"""A running broker with the chart's configuration, and what it exports once everything that is counted has happened."""

import contextlib
import functools
import http.server
import json
import re
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from chart import SETS, template
from files import BINARY, lay_out, made

# What the broker shows is made anew for each run, and the clients here need not know it: `upload` does.
ANY_CERTIFICATE = ssl.create_default_context()
ANY_CERTIFICATE.check_hostname = False
ANY_CERTIFICATE.verify_mode = ssl.CERT_NONE
# No proxy stands between a test and its own machine.
OPENER = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ANY_CERTIFICATE)
)
PATIENCE = 60
# Policies by which each counter of refusals counts.
POLICIES = [
    {"name": "videos", "object": "videos/{sub}/{id}"},
    {"name": "limited", "object": "limited/{sub}/{id}", "max_active": 1},
    {"name": "tried", "object": "tried/{sub}/{id}", "max_size": 1, "report_only": True},
]
# Another region, to which a client there is sent on.
REGIONS = [
    {"name": "europe-west1", "bucket": "media-eu", "url": "https://eu.uploads.example.com"},
    {"name": "us-central1", "bucket": "media-us", "url": "https://us.uploads.example.com"},
]
ROUTING = {"misdirected": "forward", "geo_header": "x-client-geo"}
# The end of an upload reaches the receiver of webhooks, and spans the collector of traces, when nobody waits for it.
BESIDE = [
    'webhook_deliveries_total{endpoint="backend",result="accepted"}',
    'telemetry_spans_total{result="exported"}',
]


@contextlib.contextmanager
def process(*command, **options):
    """A process that is ended with the block."""
    running = subprocess.Popen([str(part) for part in command], text=True, **options)
    try:
        yield running
    finally:
        running.terminate()
        running.wait(PATIENCE)
        for stream in (running.stdout, running.stderr):
            if stream:
                stream.close()


def ask(url, body=None, **headers):
    """(status, text) of an answer, whatever it is; a POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    headers |= {} if body is None else {"Content-Type": "application/json"}
    try:
        with OPENER.open(urllib.request.Request(url, data, headers), timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def until_ready(operations):
    deadline = time.monotonic() + PATIENCE
    while ask(f"http://{operations}/readyz")[0] != 200:
        if time.monotonic() > deadline:
            raise RuntimeError(ask(f"http://{operations}/readyz")[1])
        time.sleep(0.05)


def until_counted(metrics):
    """What is exported once what happens beside requests was counted, too."""
    deadline = time.monotonic() + PATIENCE
    while missing := [series for series in BESIDE if f"{series} 0" in (text := ask(metrics)[1])]:
        if time.monotonic() > deadline:
            raise RuntimeError(missing)
        time.sleep(0.05)
    return text


def issuer(folder):
    """The address of a server for the files of a folder."""

    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    return serving(functools.partial(Files, directory=str(folder)))


def receiver():
    """The address of a server that accepts whatever is posted."""

    class Accepting(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    return serving(Accepting)


def peer(region):
    """The address of a server that passes for the broker of a region, and can take no upload."""

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"region": region}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(500)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    return serving(Failing)


@contextlib.contextmanager
def serving(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def exported():
    """What `/metrics` says at the start, and once everything that is counted has happened."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        config = {"policies": POLICIES, "regions": REGIONS, "routing": ROUTING}
        path, environment = lay_out(template(SETS["nothing"], {"config": config}), folder)
        secret = folder / "webhook.secret"
        secret.write_text("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
        emulator = stack.enter_context(
            process(
                BINARY,
                "emulator",
                "--port",
                0,
                "--bucket",
                "media-eu",
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        )
        storage = re.search(r"http://\S+", emulator.stdout.readline())[0]
        material = folder / "material"
        # Ports that are free, and a storage and an issuer that are here; all else is the chart's.
        environment |= {
            "UPLOAD_BROKER_SERVER__LISTEN": "127.0.0.1:0",
            "UPLOAD_BROKER_SERVER__ADMIN_LISTEN": "127.0.0.1:0",
            "UPLOAD_BROKER_STORAGE__ENDPOINT": storage,
            "UPLOAD_BROKER_ISSUERS__0__JWKS_URL": f"{stack.enter_context(issuer(material))}/jwks.json",
            "UPLOAD_BROKER_NOTIFICATIONS__AUDIENCE": "https://eu.uploads.example.com/v1/notifications/storage",
            "UPLOAD_BROKER_NOTIFICATIONS__SERVICE_ACCOUNT": "push@acme.iam.gserviceaccount.com",
            "UPLOAD_BROKER_NOTIFICATIONS__JWKS_FILE": str(material / "jwks.json"),
            "UPLOAD_BROKER_NOTIFICATIONS__ALGORITHMS": '["ES256"]',
            "UPLOAD_BROKER_SERVER__TRUSTED_PROXIES": '["127.0.0.0/8"]',
            "UPLOAD_BROKER_SERVER__TLS__CERTIFICATE": str(material / "tls.crt"),
            "UPLOAD_BROKER_SERVER__TLS__KEY": str(material / "tls.key"),
            # Not there: that there is to be one suffices for its metric.
            "UPLOAD_BROKER_ROUTING__GEOIP_DATABASE": str(folder / "GeoLite2-City.mmdb"),
            "UPLOAD_BROKER_REGIONS__1__URL": stack.enter_context(peer("us-central1")),
            "UPLOAD_BROKER_WEBHOOKS__0__URL": stack.enter_context(receiver()),
            "UPLOAD_BROKER_WEBHOOKS__0__NAME": "backend",
            "UPLOAD_BROKER_WEBHOOKS__0__SECRET_FILE": str(secret),
            "UPLOAD_BROKER_WEBHOOKS__0__ALLOW_PRIVATE_ADDRESSES": "true",
            "UPLOAD_BROKER_TELEMETRY__OTLP_ENDPOINT": stack.enter_context(receiver()),
        }
        log = stack.enter_context(open(folder / "log", "w", encoding="utf-8"))
        stack.enter_context(process(BINARY, "serve", "--config", path, env=environment, stdout=log, stderr=log))
        address, operations = addresses(folder / "log")
        metrics = f"http://{operations}/metrics"
        before = ask(metrics)[1]
        until_ready(operations)
        token = folder / "token"
        token.write_text(made([BINARY, "token", "--key", material / "issuer.pem", "--subject", "ada"]))
        # The name in the certificate.
        use(folder, f"https://localhost:{address.rsplit(':', 1)[1]}", token, storage)
        return before, until_counted(metrics)


def use(folder, url, token, storage):
    """Does once whatever is counted."""
    file = folder / "holiday.mp4"
    file.write_bytes(bytes(1000))
    trusted = folder / "material" / "tls.crt"
    made([BINARY, "upload", file, "--broker", url, "--ca", trusted, "--token-file", token, "--policy", "videos"])
    uploads = f"{url}/v1/uploads"
    ada = {"Authorization": f"Bearer {token.read_text().strip()}"}
    # Storage fails once, and is asked again.
    ask(f"{storage}/_emulator/faults", [{"operation": "initiate", "action": {"kind": "respond", "status": 503}}])
    upload = {"filename": "a", "size_bytes": 1000}
    for policy, status in [("limited", 201), ("limited", 429), ("tried", 201)]:
        answer = ask(uploads, {**upload, "policy": policy}, **ada)
        if answer[0] != status:
            raise RuntimeError(answer)
    # Storage refuses, and the client is told that it is not its fault.
    ask(f"{storage}/_emulator/faults", [{"operation": "initiate", "action": {"kind": "respond", "status": 403}}])
    refused = ask(uploads, {**upload, "policy": "videos"}, **ada)
    if refused[0] != 502:
        raise RuntimeError(refused)
    # The nearest region cannot take it, so it is served here.
    sent_on = ask(uploads, {**upload, "policy": "videos"}, **ada, **{ROUTING["geo_header"]: "US"})
    if sent_on[0] != 201:
        raise RuntimeError(sent_on)
    renewed = ask(f"{uploads}/{json.loads(answer[1])['id']}/renew", {}, **ada)
    if renewed[0] != 200:
        raise RuntimeError(renewed)
    ask(f"{url}/v1/policies", Authorization="Bearer nonsense")
    # As probes do.
    ask(f"{url}/v1/route")
    ended = json.loads(ask(uploads, **ada)[1])["uploads"][-1]
    # A stream of what has ended says so, and is over.
    ask(f"{uploads}/{ended['id']}/events", Accept="text/event-stream", **ada)


def addresses(log):
    """The two addresses that the broker's log says it listens on."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                fields = json.loads(line)
                if "operations" in fields:
                    return fields["address"], fields["operations"]
        time.sleep(0.05)
    raise RuntimeError(log.read_text())
