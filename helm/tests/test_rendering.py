"""What Helm makes of values: a release, or a refusal that says what to do."""

import re
import shutil
import tarfile
import tempfile
import unittest
from pathlib import Path

import yaml

from chart import CHART, SETS, Refused, example, helm, objects, template, texts

# The keys of the configuration that name a file: how to set each to a path. Those without a secret may be anywhere.
PUBLIC_FILES = {
    "trusted_ca": lambda path: {"trusted_ca": path},
    "store.tls.ca": lambda path: {"store": {"tls": {"ca": path}}},
    "storage.credentials.file": lambda path: {"storage": {"credentials": {"file": path}}},
    "issuers.jwks_file": lambda path: {"issuers": [{"issuer": "https://issuer.example", "jwks_file": path}]},
    "notifications.jwks_file": lambda path: {"notifications": {"jwks_file": path}},
    "routing.geoip_database": lambda path: {"routing": {"geoip_database": path}},
}
PAIR = "/run/secrets/upload-broker/session-keys/x"
SECRET_FILES = {
    "server.tls.certificate": lambda path: {"server": {"tls": {"certificate": path, "key": PAIR}}},
    "server.tls.key": lambda path: {"server": {"tls": {"certificate": PAIR, "key": path}}},
    "store.tls.certificate": lambda path: {"store": {"tls": {"certificate": path, "key": PAIR}}},
    "store.tls.key": lambda path: {"store": {"tls": {"certificate": PAIR, "key": path}}},
    "store.encryption_keys.file": lambda path: {"store": {"encryption_keys": [{"id": "k1", "file": path}]}},
    "webhooks.secret_file": lambda path: {"webhooks": [{"url": "https://backend.example", "secret_file": path}]},
}
# What a pod has mounted.
PRESENT = {
    "configFiles": {"present": "x"},
    "extraVolumes": [
        {"name": "more", "emptyDir": {}},
        {"name": "vault", "csi": {"driver": "secrets-store.csi.k8s.io"}},
    ],
    "extraVolumeMounts": [
        {"name": "more", "mountPath": "/mounted/"},
        {"name": "vault", "mountPath": "/run/secrets/upload-broker/vault"},
    ],
}
ALWAYS = {"ConfigMap", "Deployment", "Pod", "Service"}
EXPECTED = {
    "minimal": ALWAYS | {"NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"},
    "nothing": ALWAYS,
    "everything": ALWAYS
    | {"HTTPRoute", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "PodDisruptionBudget", "PodMonitor"}
    | {"PrometheusRule", "ServiceAccount"},
}


class Rendering(unittest.TestCase):
    def test_lint_finds_nothing(self):
        for name, files in SETS.items():
            with self.subTest(name):
                chosen = [argument for file in files for argument in ("--values", file)]
                done = helm("lint", "--strict", CHART, "--kube-version", "1.34.0", *chosen)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertNotIn("[WARNING]", done.stdout)

    def test_each_set_of_values_makes_the_kinds_of_objects_that_it_asks_for(self):
        for name, kinds in EXPECTED.items():
            with self.subTest(name):
                self.assertEqual({one["kind"] for one in objects(name)}, kinds)

    def test_defaults_alone_are_refused_with_all_that_is_missing(self):
        switches = ("ingress", "httpRoute", "podMonitor", "prometheusRule", "dashboards", "autoscaling")
        for values in ({}, {switch: {"enabled": True} for switch in switches}):
            self.misses_what_is_needed(values)

    def misses_what_is_needed(self, values):
        with self.assertRaises(Refused) as refused:
            template([], values)
        for missing in (
            "image.repository is needed",
            "config.region is needed",
            "config.regions is needed",
            "config.issuers is needed",
            "config.policies is needed",
            "config.server.tls or config.server.trusted_proxies is needed",
            "config.store.url or secrets.redisUrl.name is needed",
            "config.store.encryption_keys is needed",
        ):
            self.assertIn(missing, str(refused.exception))

    def test_values_that_contradict_each_other_are_refused_by_name(self):
        secret = "/run/secrets/upload-broker"
        for name, values, said in [
            (
                "a budget that lets nobody go",
                {"podDisruptionBudget": {"minAvailable": 3}},
                "minAvailable (3) must be below",
            ),
            (
                "a budget as large as the smallest scale",
                {"autoscaling": {"enabled": True, "minReplicas": 2}},
                "minAvailable (2) must be below the number of instances (2)",
            ),
            (
                "a scale upside down",
                {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}},
                "minReplicas must not be above",
            ),
            (
                "a region that is not one",
                {"config": {"region": "mars-north1"}},
                "no name in config.regions (europe-west1)",
            ),
            ("a region that the chart does not know", {"config": {"region": "auto"}}, "server.public_url is needed"),
            ("no end of TLS", {"config": {"server": {"trusted_proxies": []}}}, "every request is refused"),
            ("a memory of several", {"config": {"store": {"url": "memory"}}}, "serves one instance"),
            ("two addresses of Redis", {"secrets": {"redisUrl": {"name": "redis"}}}, "leave out config.store.url"),
            (
                "a password for nothing",
                {
                    "replicas": 1,
                    "config": {"store": {"url": "memory"}},
                    "secrets": {"redisPassword": {"name": "redis"}},
                },
                "secrets.redisPassword is for a config.store.url of Redis",
            ),
            (
                "a Secret that is not mounted",
                {
                    "config": {
                        "server": {"tls": {"certificate": f"{secret}/tls/tls.crt", "key": f"{secret}/tls/tls.key"}}
                    }
                },
                'secrets.files has no "tls"',
            ),
            (
                "the same in a section that the chart does not know",
                {"config": {"telemetry": {"certificate": f"{secret}/otlp/ca.crt"}}},
                'secrets.files has no "otlp"',
            ),
            (
                "a file of a directory beside the configuration",
                {"config": {"trusted_ca": "roots/a.pem"}, "configFiles": {"a.pem": "x"}},
                '"roots/a.pem", which is no name in configFiles',
            ),
            (
                "too little time to drain",
                {"preStopSleepSeconds": 11},
                "terminationGracePeriodSeconds must be at least 46",
            ),
            (
                "two monitors",
                {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
                "would count everything twice",
            ),
            (
                "a variable twice",
                {"env": {"HTTPS_PROXY": "http://a"}, "secrets": {"env": {"HTTPS_PROXY": {"name": "a", "key": "b"}}}},
                "HTTPS_PROXY is in env and in secrets.env",
            ),
            (
                "alerts on series that nobody makes",
                {"prometheusRule": {"enabled": True}},
                "would fire UploadBrokerDown for ever",
            ),
            (
                "alerts on series of somebody else",
                {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True, "job": "broker"}},
                "prometheusRule.job is for series that something else makes",
            ),
            ("a route of no gateway", {"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is needed"),
            (
                "a password in a section that the chart does not know",
                {"config": {"telemetry": {"otlp_endpoint": "https://me:hunter2@collector"}}},
                "config holds a password or a key",
            ),
            (
                "a key in the configuration",
                {"config": {"sweeper": {"note": "-----BEGIN EC PRIVATE KEY-----"}}},
                "config holds a password or a key",
            ),
        ]:
            with self.subTest(name):
                with self.assertRaises(Refused) as refused:
                    template(SETS["minimal"], values)
                self.assertIn(said, str(refused.exception))
                self.assertNotIn("hunter2", str(refused.exception))

    def test_files_that_the_pod_would_not_have_are_refused_and_those_that_it_has_are_not(self):
        for key, made in PUBLIC_FILES.items():
            for path, said in [
                ("absent", "which is no name in configFiles"),
                ("../upload-broker/absent", "which is no name in configFiles"),
                ("/etc/upload-broker/absent", "where nothing is mounted"),
                ("/var/lib/absent", "where nothing is mounted"),
                ("/mounted-elsewhere/x", "where nothing is mounted"),
                ("/mounted/../etc/x", "where nothing is mounted"),
                ("/run/secrets/upload-broker/absent/x", 'secrets.files has no "absent"'),
                ("present", None),
                ("./present", None),
                ("/etc/upload-broker/present", None),
                ("/run/secrets/upload-broker/session-keys/x", None),
                ("/run/secrets/upload-broker/vault/x", None),
                ("/mounted/below/x", None),
            ]:
                values = {"config": made(path), **PRESENT}
                if key == "routing.geoip_database" and said == "where nothing is mounted":
                    # It may be in an image of one's own, and the broker serves without it.
                    said = None
                with self.subTest(f"{key}: {path}"):
                    if said is None:
                        template(SETS["minimal"], values)
                    else:
                        with self.assertRaises(Refused) as refused:
                            template(SETS["minimal"], values)
                        self.assertIn(said, str(refused.exception))
                        if not said.startswith("secrets"):
                            self.assertIn(f'config.{key} is "{path}"', str(refused.exception).replace("[0]", ""))

    def test_secret_files_are_nowhere_but_among_secrets_that_are_mounted(self):
        for key, made in SECRET_FILES.items():
            for path, said in [
                ("present", "/config"),
                ("/mounted/x", "/config"),
                ("/run/secrets/upload-broker/absent/x", 'secrets.files has no "absent"'),
            ]:
                with self.subTest(f"{key}: {path}"):
                    with self.assertRaises(Refused) as refused:
                        template(SETS["minimal"], {"config": made(path), **PRESENT})
                    self.assertIn(said, str(refused.exception))

    def test_every_file_of_the_configuration_is_looked_for(self):
        file = re.compile(r"[^/:]+\.(pem|crt|key|json|mmdb|secret)")
        named = {re.sub(r"\[\d+\]", "", path) for path, text in texts(example()) if file.fullmatch(text)}
        # It stands there as "auto".
        named.add("storage.credentials.file")
        self.assertEqual(named, PUBLIC_FILES.keys() | SECRET_FILES.keys())

    def test_an_old_cluster_is_refused(self):
        with self.assertRaises(Refused) as refused:
            template(SETS["minimal"], kubernetes="1.29")
        self.assertIn("requires kubeVersion", str(refused.exception))

    def test_sections_of_later_versions_are_passed_on(self):
        sections = {
            "routing": {"misdirected": "forward"},
            "sweeper": {"idle_after": "15m"},
            "telemetry": {"otlp_endpoint": "http://collector:4318"},
            "notifications": {"audience": "https://eu.uploads.example.com/v1/notifications/storage"},
            "webhooks": [
                {"url": "https://backend.example.com/hooks", "secret_file": "/run/secrets/upload-broker/webhooks/a"}
            ],
        }
        found = template(SETS["minimal"], {"config": sections, "secrets": {"files": {"webhooks": "webhooks"}}})
        [text] = [one["data"]["config.toml"] for one in found if one["kind"] == "ConfigMap"]
        for said in ("[routing]", "[sweeper]", "[telemetry]", "[notifications]", "[[webhooks]]", "webhooks/a"):
            self.assertIn(said, text)

    def test_long_names_of_releases_leave_room_for_what_is_added(self):
        for one in template(SETS["everything"], release="r" * 53):
            self.assertLessEqual(len(one["metadata"]["name"]), 63, one["kind"])

    def test_notes_tell_where_the_release_is_and_how_to_look_at_it(self):
        # Helm shows notes only beside a cluster: a copy of the chart makes an object of them.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(CHART, Path(folder) / "upload-broker"))
            include = '{{ include (print $.Template.BasePath "/NOTES.txt") . | toJson }}'
            (copy / "templates" / "notes.yaml").write_text(f"kind: Notes\ntext: {include}\n")
            notes = {}
            unnamed = ("--set", "config.region=auto,config.server.public_url=https://eu.uploads.example.com")
            sets = [(name, files, ()) for name, files in SETS.items()] + [("auto", SETS["minimal"], unnamed)]
            for name, files, more in sets:
                chosen = [argument for file in files for argument in ("--values", file)]
                show = ("--kube-version", "1.34.0", "--show-only", "templates/notes.yaml")
                done = helm("template", "eu", copy, *show, *chosen, *more)
                self.assertEqual(done.returncode, 0, done.stderr)
                notes[name] = yaml.safe_load(done.stdout)["text"]
        self.assertIn("serves region us-east4 at https://us-east4.uploads.example.com.", notes["us-east4"])
        self.assertIn("serves the region of its machines at https://eu.uploads.example.com.", notes["auto"])
        self.assertIn("helm --namespace default test eu", notes["us-east4"])
        named = "upload-broker-redis, upload-broker-redis-tls, upload-broker-session-keys, upload-broker-tls"
        self.assertIn(f"must exist: {named}.", notes["us-east4"])
        self.assertIn("must exist: proxy, redis, redis-tls, session-keys, tls, webhooks.", notes["everything"])
        self.assertNotIn("must exist", notes["nothing"])
        self.assertNotIn("Nobody reads its metrics", notes["us-east4"])
        self.assertIn("Nobody reads its metrics", notes["minimal"])

    def test_the_package_holds_what_templates_read(self):
        with tempfile.TemporaryDirectory() as folder:
            done = helm("package", CHART, "--destination", folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            [archive] = Path(folder).iterdir()
            with tarfile.open(archive) as packed:
                names = set(packed.getnames())
                described = yaml.safe_load(packed.extractfile("upload-broker/Chart.yaml"))
        for file in (
            "values.schema.json",
            "files/alerts.yaml",
            "files/dashboards/users.json",
            "templates/tests/ready.yaml",
        ):
            self.assertIn(f"upload-broker/{file}", names)
        self.assertEqual(described["name"], "upload-broker")
