"""What an upgrade does to a release that runs."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from chart import CHART, NAMESPACE, RELEASE, REPOSITORY, SETS, helm
from cluster import cluster

DEPLOYING = (REPOSITORY / "docs" / "deploying.md").read_text()
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{RELEASE}"
SCALER = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/{RELEASE}"
# As much of kubectl as the page uses.
KUBECTL = """#!{python}
import json, sys, urllib.request
secrets = "{address}/api/v1/namespaces/{namespace}/secrets"
def ask(path, patch=None):
    request = urllib.request.Request(secrets + path, patch, method="PATCH" if patch else "GET")
    with urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request) as answer:
        return json.load(answer)
match sys.argv[1:]:
    case ["--namespace", "{namespace}", "get", "secrets", "--selector", labels, "--output", "name"]:
        for one in ask("?labelSelector=" + labels)["items"]:
            print("secret/" + one["metadata"]["name"])
    case ["--namespace", "{namespace}", "get", name, "--output", "jsonpath={{.data.release}}"]:
        print(ask(name.removeprefix("secret"))["data"]["release"], end="")
    case ["--namespace", "{namespace}", "patch", name, "--type", "merge", "--patch-file", file]:
        ask(name.removeprefix("secret"), open(file, "rb").read())
    case other:
        sys.exit(f"unknown: {{other}}")
"""


def upgrade(folder, *arguments):
    """Installs or upgrades a release of the minimal values, with more arguments."""
    done = helm(
        *("upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE, "--kubeconfig", folder / "access"),
        # The stand-in has no schemas.
        "--disable-openapi-validation",
        *(argument for file in SETS["minimal"] for argument in ("--values", file)),
        *arguments,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)


def commands(heading):
    """The first commands below a heading of the page."""
    return re.search(rf"^#+ {heading}\n.*?^```sh\n(.*?)^```", DEPLOYING, re.MULTILINE | re.DOTALL)[1]


class Upgrades(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.cluster = self.enterContext(cluster())
        self.cluster.write_access(self.folder / "access")
        upgrade(self.folder)
        self.assertEqual(self.cluster.objects[DEPLOYMENT]["spec"]["replicas"], 3)

    def patches(self):
        return [patch for path, patch in self.cluster.patches if path == DEPLOYMENT]

    def test_an_upgrade_without_a_change_touches_no_pod(self):
        upgrade(self.folder)
        self.assertEqual(self.patches(), [])

    def test_autoscaling_that_is_switched_on_takes_the_number_of_instances_away(self):
        # Without a number there is one instance. As soon as this fails, the page need not tell how to avoid it.
        upgrade(self.folder, "--set", "autoscaling.enabled=true")
        self.assertEqual(self.patches(), [{"spec": {"replicas": None}}])

    def test_autoscaling_is_switched_on_without_a_gap_as_the_page_says(self):
        kubectl = self.folder / "kubectl"
        kubectl.write_text(KUBECTL.format(python=sys.executable, address=self.cluster.address, namespace=NAMESPACE))
        kubectl.chmod(0o700)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands("Switching autoscaling on")],
            cwd=self.folder,
            env={"PATH": f"{self.folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.cluster.patches.clear()
        upgrade(self.folder, "--set", "autoscaling.enabled=true")
        self.assertIn(SCALER, self.cluster.objects)
        self.assertEqual(self.patches(), [])
        self.assertEqual(self.cluster.objects[DEPLOYMENT]["spec"]["replicas"], 3)
        # And from then on it is the scaler's.
        self.cluster.objects[DEPLOYMENT]["spec"]["replicas"] = 7
        upgrade(self.folder, "--set", "autoscaling.enabled=true", "--set", "logFilter=debug")
        self.assertEqual(self.cluster.objects[DEPLOYMENT]["spec"]["replicas"], 7)
