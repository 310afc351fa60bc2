"""The chart as Helm renders it, and the value files that it is rendered with."""

import functools
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import yaml

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent.parent
CHART = REPOSITORY / "helm" / "upload-broker"
EXAMPLES = CHART / "examples"
HELM = os.environ.get("HELM") or str(Path(sys.executable).parent / "helm")
NAMESPACE = "uploads"
RELEASE = "upload-broker"
# The oldest Kubernetes that the chart is for, one in use, and the newest that schemas are at hand for.
KUBERNETES = ("1.30", "1.34", "1.37")
REGIONS = ("europe-west1", "us-east4", "asia-northeast1")

# Every set of values that makes a release, by name.
SETS = {
    "minimal": (TESTS / "values" / "minimal.yaml",),
    "nothing": (TESTS / "values" / "nothing.yaml",),
    "everything": (TESTS / "values" / "everything.yaml",),
    **{region: (EXAMPLES / "common.yaml", EXAMPLES / f"{region}.yaml") for region in REGIONS},
}


class Refused(Exception):
    """Helm does not render these values; the text says why."""


class OnceLoader(yaml.SafeLoader):
    """Reads YAML as an API server does, which takes no key twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {sorted(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def helm(*arguments):
    """Runs Helm, without settings, plugins and repositories of whoever runs the tests."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home}
        return subprocess.run(
            [HELM, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
        )


def template(files, values=None, kubernetes="1.34", release=RELEASE):
    """The objects of a release with these value files, and a map of values over them."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as over:
        yaml.safe_dump(values or {}, over)
        over.flush()
        chosen = [argument for file in (*files, over.name) for argument in ("--values", file)]
        done = helm("template", release, CHART, "--namespace", NAMESPACE, "--kube-version", f"{kubernetes}.0", *chosen)
    if done.returncode != 0:
        raise Refused(done.stderr)
    # What templates leave empty is no object.
    return [found for found in yaml.load_all(done.stdout, OnceLoader) if found is not None]


@functools.cache
def objects(name, kubernetes="1.34"):
    """The objects of one of the sets. They are shared: copy before changing one."""
    return template(SETS[name], kubernetes=kubernetes)


def of_kind(found, kind):
    """Those of one kind."""
    return [one for one in found if one["kind"] == kind]


def only(found, kind, **labels):
    """The one object of a kind, with these labels of `app.kubernetes.io/`."""
    wanted = {f"app.kubernetes.io/{key}": value for key, value in labels.items()}.items()
    [one] = [one for one in of_kind(found, kind) if wanted <= one["metadata"]["labels"].items()]
    return one


def named(found, kind, name):
    """The object of a kind and a name."""
    [one] = [one for one in of_kind(found, kind) if one["metadata"]["name"] == name]
    return one


def pods(found):
    """(name, metadata, specification) of every pod that the objects make, the hooks' among them."""
    for one in found:
        name = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one["metadata"], one["spec"]
        elif "template" in one.get("spec", {}):
            yield name, one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]


def broker(found):
    """The container of the broker."""
    [container] = only(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


def configuration(found):
    """The ConfigMap that holds the configuration."""
    [one] = [one for one in of_kind(found, "ConfigMap") if "config.toml" in one["data"]]
    return one


def example():
    """The broker's example configuration, with the optional keys, which stand behind a "#" there."""
    text = (REPOSITORY / "upload-broker.example.toml").read_text()
    return tomllib.loads(re.sub(r"^#(\[|\w+ = )", r"\1", text, flags=re.MULTILINE))


def texts(value, path=""):
    """(path, text) of every text inside."""
    if isinstance(value, str):
        yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    for key, one in inner:
        yield from texts(one, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip("."))
