"""A running broker with the chart's configuration, and what it exports once everything that is counted has happened."""

import contextlib
import functools
import http.server
import json
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from chart import SETS, template
from files import BINARY, lay_out, made

# No proxy stands between a test and its own machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PATIENCE = 60
# Policies by which each counter of refusals counts.
POLICIES = [
    {"name": "videos", "object": "videos/{sub}/{id}"},
    {"name": "limited", "object": "limited/{sub}/{id}", "max_active": 1},
    {"name": "tried", "object": "tried/{sub}/{id}", "max_size": 1, "report_only": True},
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


@contextlib.contextmanager
def issuer(folder):
    """The address of a server for the files of a folder."""

    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def exported():
    """What `/metrics` says once every metric has a series: a family without one is left out of it."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        path, environment = lay_out(template(SETS["nothing"], {"config": {"policies": POLICIES}}), folder)
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
        }
        log = stack.enter_context(open(folder / "log", "w", encoding="utf-8"))
        stack.enter_context(
            process(BINARY, "serve", "--insecure-loopback", "--config", path, env=environment, stdout=log, stderr=log)
        )
        address, operations = addresses(folder / "log")
        until_ready(operations)
        token = folder / "token"
        token.write_text(made([BINARY, "token", "--key", material / "issuer.pem", "--subject", "ada"]))
        use(folder, f"http://{address}", token, storage)
        return ask(f"http://{operations}/metrics")[1]


def use(folder, url, token, storage):
    """Does once whatever is counted."""
    file = folder / "holiday.mp4"
    file.write_bytes(bytes(1000))
    made([BINARY, "upload", file, "--broker", url, "--token-file", token, "--policy", "videos"])
    uploads = f"{url}/v1/uploads"
    ada = {"Authorization": f"Bearer {token.read_text().strip()}"}
    # Storage fails once, and is asked again.
    ask(f"{storage}/_emulator/faults", [{"operation": "initiate", "action": {"kind": "respond", "status": 503}}])
    upload = {"filename": "a", "size_bytes": 1000}
    for policy, status in [("limited", 201), ("limited", 429), ("tried", 201)]:
        answer = ask(uploads, {**upload, "policy": policy}, **ada)
        if answer[0] != status:
            raise RuntimeError(answer)
    renewed = ask(f"{uploads}/{json.loads(answer[1])['id']}/renew", {}, **ada)
    if renewed[0] != 200:
        raise RuntimeError(renewed)
    ask(f"{url}/v1/policies", Authorization="Bearer nonsense")


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
