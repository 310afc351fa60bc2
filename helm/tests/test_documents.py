"""Documents that must say what the chart does."""

import re
import subprocess
import sys
import tomllib
import unittest
from pathlib import Path

import yaml

from chart import CHART, EXAMPLES, KUBERNETES, NAMESPACE, REPOSITORY, SETS, broker, helm, pods, template
from restricted import violations
from test_configuration import check
from test_objects import problems

ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
RUNBOOK = (REPOSITORY / "docs" / "runbook.md").read_text()
DEPLOYING = (REPOSITORY / "docs" / "deploying.md").read_text()


def keys(values, path=""):
    """The paths of all values that are not maps with keys."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from keys(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


class Documents(unittest.TestCase):
    def test_the_table_of_values_is_up_to_date(self):
        done = subprocess.run(
            [sys.executable, REPOSITORY / "helm" / "values_table.py", "--check"],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_every_value_is_in_the_table(self):
        rows = set(re.findall(r"^\| `([^`]+)` \|", (CHART / "README.md").read_text(), re.MULTILINE))
        for key in keys(yaml.safe_load((CHART / "values.yaml").read_text())):
            above = {key.rsplit(".", drop)[0] for drop in range(key.count(".") + 1)}
            self.assertTrue(above & rows, f"{key} is in no row")

    def test_the_chart_is_for_the_version_that_is_built_here(self):
        described = yaml.safe_load((CHART / "Chart.yaml").read_text())
        built = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["package"]
        self.assertEqual((described["name"], described["appVersion"]), (built["name"], built["version"]))

    def test_every_alert_has_a_paragraph_in_the_runbook_and_every_paragraph_an_alert(self):
        names = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"]]
        self.assertEqual(len(names), len(set(names)))
        described = re.findall(r"^### (UploadBroker\w+)\n\n(\S.+)", RUNBOOK, re.MULTILINE)
        self.assertEqual([name for name, _ in described], names)

    def test_the_steps_make_the_secrets_of_the_examples_and_set_what_they_use(self):
        common = yaml.safe_load((EXAMPLES / "common.yaml").read_text())
        steps = DEPLOYING.split("\n## One region, step by step\n")[1].split("\n## ")[0]
        commands = "\n".join(re.findall(r"^```sh\n(.*?)^```", steps, re.MULTILINE | re.DOTALL))
        made = set(re.findall(r"create secret generic (\S+)", commands))
        secrets = common["secrets"]
        # The certificate comes from elsewhere.
        needed = {*secrets["files"].values(), secrets["redisUrl"]["name"]} - {"upload-broker-tls"}
        self.assertEqual(made, needed)
        [port] = re.findall(r'--from-literal=url="rediss://:\$PASSWORD@\$REDIS:(\d+)"', commands)
        self.assertEqual(common["networkPolicy"]["redisPorts"], [int(port)])
        files = re.findall(r"> (\S+)$", commands, re.MULTILINE)
        self.assertEqual(set(re.findall(r"--from-file=(\S+)", commands)), set(files))
        self.assertLessEqual(set(re.findall(r"\$(\w+)", commands)), set(re.findall(r"^(\w+)=", commands, re.MULTILINE)))

    def test_the_database_of_addresses_is_set_up_as_the_page_says(self):
        section = DEPLOYING.split("\n## A database of addresses\n")[1].split("\n## ")[0]
        values, manifests = re.findall(r"^```yaml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        values = yaml.safe_load(values)
        claim, job = yaml.safe_load_all(manifests)
        for one in (claim, job):
            self.assertEqual(problems(one, KUBERNETES[0]), [], one["kind"])
            self.assertEqual(one["metadata"]["namespace"], NAMESPACE)
        writer = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        self.assertEqual(violations(writer), [])
        found = template(SETS["minimal"], values)
        [reader] = [spec for name, _, spec in pods(found) if name.startswith("Deployment")]
        # The same volume, to the same user, where the configuration looks for it.
        for spec in (reader, writer):
            [volume] = [volume for volume in spec["volumes"] if volume["name"] == "geoip"]
            self.assertEqual(volume["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"])
            self.assertEqual(spec["securityContext"]["runAsUser"], 65532)
            self.assertEqual(spec["securityContext"]["fsGroup"], 65532)
        file = values["config"]["routing"]["geoip_database"]
        [mount] = [mount for mount in broker(found)["volumeMounts"] if mount["name"] == "geoip"]
        self.assertEqual(str(Path(file).parent), mount["mountPath"])
        # No such file is here: that is a remark, and no fault.
        done = check(found)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{file} cannot be read", done.stdout + done.stderr)

    def test_the_pages_name_the_helm_that_was_tested(self):
        tested = re.search(r"^v(\d+\.\d+)", helm("version", "--short").stdout)[1]
        for text in (DEPLOYING, (CHART / "README.md").read_text()):
            self.assertIn(tested, text)

    def test_the_pages_name_files_that_there_are(self):
        for text in (RUNBOOK, DEPLOYING):
            for path in re.findall(r"(?:helm/upload-broker|docs)/[-\w./]+\.(?:yaml|md|json)", text):
                self.assertTrue((REPOSITORY / path).exists(), path)
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
                self.assertTrue((REPOSITORY / "docs" / target).exists(), target)
