"""As much of an API server as Helm needs to keep a release: it holds objects, and notes what each is patched with.

It merges patches by maps alone, and puts no defaults in: what an API server makes of a patch is not tested by it.
"""

import base64
import contextlib
import http.server
import json
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from chart import NAMESPACE

# The resources of each group that the tests install.
RESOURCES = {
    "v1": {"secrets": "Secret", "configmaps": "ConfigMap", "services": "Service", "serviceaccounts": "ServiceAccount"},
    "apps/v1": {"deployments": "Deployment"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
}
VERBS = ["create", "delete", "get", "list", "patch", "update"]
# What stands before a message of Protocol Buffers, in which Helm writes its Secrets (Kubernetes documentation,
# "Kubernetes API Concepts", section "Kubernetes Protobuf encoding").
PROTOBUF = b"k8s\0"


class Cluster:
    """Objects by their paths, and (path, patch) of all patches."""

    def __init__(self):
        self.objects = {}
        self.patches = []
        self.address = ""

    def write_access(self, file):
        """Writes what tells a client of the cluster where it is."""
        access = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": self.address}}],
            "users": [{"name": "tests", "user": {}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        Path(file).write_text(json.dumps(access))

    def selected(self, collection, labels):
        """The objects of a collection that have the labels, written `a=b,c=d`."""
        wanted = dict(one.split("=", 1) for one in labels.split(",") if one).items()
        inside = [one for path, one in self.objects.items() if path.rsplit("/", 1)[0] == collection]
        return [one for one in inside if wanted <= one["metadata"].get("labels", {}).items()]

    def discovered(self, path):
        """What is said of the server itself at a path; None where it is another path."""
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            versions = [{"groupVersion": one, "version": one.split("/")[1]} for one in RESOURCES if "/" in one]
            groups = [
                {"name": one["groupVersion"].split("/")[0], "versions": [one], "preferredVersion": one}
                for one in versions
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        group = path.removeprefix("/apis/").removeprefix("/api/")
        if group in RESOURCES:
            found = [
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": VERBS}
                for name, kind in RESOURCES[group].items()
            ]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": found}
        return None


@contextlib.contextmanager
def cluster():
    """A cluster without any object, for as long as the block takes."""
    held = Cluster()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(held))
    held.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever).start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()


def handler(held):
    kinds = {name: kind for group in RESOURCES.values() for name, kind in group.items()}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            url = urlsplit(self.path)
            path = url.path.rstrip("/")
            if said := held.discovered(path) or held.objects.get(path):
                self.answer(said)
            elif (name := path.rsplit("/", 1)[1]) in kinds:
                labels = parse_qs(url.query).get("labelSelector", [""])[0]
                items = held.selected(path, labels)
                self.answer({"kind": f"{kinds[name]}List", "apiVersion": "v1", "metadata": {}, "items": items})
            else:
                self.answer({"kind": "Status", "apiVersion": "v1", "reason": "NotFound", "code": 404}, 404)

        def do_POST(self):
            made = self.body()
            held.objects[f"{urlsplit(self.path).path}/{made['metadata']['name']}"] = made
            self.answer(made, 201)

        def do_PUT(self):
            path = urlsplit(self.path).path
            held.objects[path] = self.body()
            self.answer(held.objects[path])

        def do_PATCH(self):
            path, patch = urlsplit(self.path).path, self.body()
            held.patches.append((path, patch))
            held.objects[path] = merged(held.objects[path], patch)
            self.answer(held.objects[path])

        def body(self):
            text = self.rfile.read(int(self.headers["content-length"]))
            return secret(text.removeprefix(PROTOBUF)) if text.startswith(PROTOBUF) else json.loads(text)

        def answer(self, said, status=200):
            text = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler


def merged(value, patch):
    """The value after a patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for key, inner in patch.items():
        result[key] = merged(result.get(key), inner)
    return {key: inner for key, inner in result.items() if inner is not None}


def secret(message):
    """The Secret in a message of Protocol Buffers: name, labels, data and type (k8s.io/api/core/v1/generated.proto)."""
    inside = fields(dict(fields(message))[2])
    metadata = fields(dict(inside)[1])
    pairs = [(number, dict(fields(entry))) for number, entry in metadata if number == 11]
    data = [dict(fields(entry)) for number, entry in inside if number == 2]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": dict(metadata)[1].decode(),
            "namespace": NAMESPACE,
            "labels": {pair[1].decode(): pair.get(2, b"").decode() for _, pair in pairs},
        },
        "data": {entry[1].decode(): base64.b64encode(entry[2]).decode() for entry in data},
        "type": dict(inside)[3].decode(),
    }


def fields(message):
    """(number, content) of the fields of a message, numbers or bytes."""
    found, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        content = number()
        if key & 7 == 2:
            length, content = content, message[at : at + content]
            at += length
        found.append((key >> 3, content))
    return found
