"""What the schema of values refuses, and that it and values.yaml name the same."""

import json
import unittest

import jsonschema
import yaml

from chart import CHART, SETS, Refused, template

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# Whose keys are those of Kubernetes, of an annotation or of the broker, and so not the chart's to list.
FREE = {"global", "affinity", "config"}


def resolved(schema):
    """The schema itself, behind a reference to a definition."""
    return SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema


def config(**sections):
    return {"config": sections}


def secret_file(name):
    return f"/run/secrets/upload-broker/{name}"


class Schema(unittest.TestCase):
    def test_it_is_a_schema(self):
        jsonschema.Draft7Validator.check_schema(SCHEMA)

    def test_the_schema_and_the_values_have_the_same_keys(self):
        def compare(schema, values, path):
            if path in FREE or "additionalProperties" not in schema or schema["additionalProperties"] is not False:
                return
            known = set(schema["properties"]) - {"global"}
            self.assertEqual(known, set(values), path or "top level")
            for key, value in values.items():
                inner = resolved(schema["properties"][key])
                if isinstance(value, dict):
                    self.assertTrue(
                        key in FREE or inner.keys() & {"additionalProperties", "allOf"}, f"{key} takes any key"
                    )
                    compare(inner, value, f"{path}.{key}" if path else key)

        compare(SCHEMA, VALUES, "")

    def test_mistyped_keys_are_refused_on_every_level(self):
        for name, values in [
            ("top", {"replcias": 2}),
            ("image", {"image": {"tags": "1"}}),
            ("a section of the configuration", config(polices=[])),
            ("a key of server.tls", config(server={"tls": {"cert": "x", "key": secret_file("tls/tls.key")}})),
            (
                "a key of an encryption key",
                config(store={"encryption_keys": [{"id": "k1", "file": secret_file("s/k"), "x": 1}]}),
            ),
            ("a Secret", {"secrets": {"redis": {"name": "x"}}}),
            ("a peer", {"networkPolicy": {"adminFrom": [{"nameSpaceSelector": {}}]}}),
            ("a monitor", {"podMonitor": {"enable": True}}),
            ("a volume", {"extraVolumes": [{"name": "x", "persistantVolumeClaim": {}}]}),
        ]:
            self.refused(name, values, "additional propert")

    def test_secrets_are_refused_where_they_are_tempting(self):
        pem = "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"
        for name, values, place in [
            ("a password of Redis", config(store={"url": "redis://:hunter2@redis:6379"}), "/config/store/url"),
            ("a user of Redis", config(store={"url": "rediss://hunter2@redis:6379"}), "/config/store/url"),
            (
                "a password of Sentinels",
                config(store={"url": "redis+sentinel://a:26379/main?sentinel_password=hunter2"}),
                "/config/store/url",
            ),
            (
                "a key in place of its file",
                config(store={"encryption_keys": [{"id": "k1", "key": "hunter2"}]}),
                "/encryption_keys",
            ),
            (
                "a sealing key beside the configuration",
                config(store={"encryption_keys": [{"id": "k1", "file": "session.key"}]}),
                "/encryption_keys/0/file",
            ),
            (
                "a TLS key beside the configuration",
                config(server={"tls": {"certificate": secret_file("tls/tls.crt"), "key": "tls.key"}}),
                "/config/server/tls/key",
            ),
            (
                "a path out of the mounted Secrets",
                config(store={"encryption_keys": [{"id": "k1", "file": secret_file("s/../../../etc/passwd")}]}),
                "/encryption_keys/0/file",
            ),
            (
                "a webhook's secret",
                config(webhooks=[{"url": "https://backend.example.com", "secret_file": "whsec_hunter2"}]),
                "/webhooks/0/secret_file",
            ),
            (
                "credentials in line",
                config(storage={"credentials": {"private_key": "hunter2"}}),
                "/storage/credentials",
            ),
            ("a private key in a file", {"configFiles": {"key.pem": pem}}, "/configFiles/key.pem"),
            (
                "a service account's key in a file",
                {"configFiles": {"sa.json": '{"type": "service_account", "private_key": "hunter2"}'}},
                "/configFiles/sa.json",
            ),
            (
                "a person's login in a file",
                {"configFiles": {"adc.json": '{"refresh_token": "hunter2"}'}},
                "/configFiles/adc.json",
            ),
            (
                "a password in a variable",
                {"env": {"REDIS_PASSWORD": "hunter2"}},
                "invalid propertyName 'REDIS_PASSWORD'",
            ),
            (
                "a password in the address of a proxy",
                {"env": {"HTTPS_PROXY": "http://me:hunter2@proxy:3128"}},
                "/env/HTTPS_PROXY",
            ),
            (
                "the same without a scheme",
                {"env": {"HTTPS_PROXY": "me:hunter2@proxy:3128"}},
                "/env/HTTPS_PROXY",
            ),
            (
                "a value where a Secret is named",
                {"secrets": {"env": {"HTTPS_PROXY": "http://me:hunter2@proxy:3128"}}},
                "/secrets/env/HTTPS_PROXY",
            ),
            (
                "configuration in a variable from a Secret",
                {"secrets": {"env": {"UPLOAD_BROKER_REGION": {"name": "a", "key": "b"}}}},
                "invalid propertyName 'UPLOAD_BROKER_REGION'",
            ),
            (
                "configuration in a variable",
                {"env": {"UPLOAD_BROKER_STORE__URL": "redis://:hunter2@redis"}},
                "invalid propertyName 'UPLOAD_BROKER_STORE__URL'",
            ),
            ("the value of a Secret", {"secrets": {"redisPassword": {"value": "hunter2"}}}, "/secrets/redisPassword"),
        ]:
            self.refused(name, values, place)

    def test_what_the_chart_has_fixed_cannot_be_changed(self):
        for name, values, place in [
            (
                "probes that nobody reaches",
                config(server={"admin_listen": "127.0.0.1:9090"}),
                "/config/server/admin_listen",
            ),
            ("another public port", config(server={"listen": "0.0.0.0:443"}), "/config/server/listen"),
            (
                "a public address in the clear",
                config(server={"public_url": "http://eu.example.com"}),
                "/config/server/public_url",
            ),
            (
                "a label that selectors need",
                {"podLabels": {"app.kubernetes.io/name": "other"}},
                "invalid propertyName 'app.kubernetes.io/name'",
            ),
            ("a file of the host", {"extraVolumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "/extraVolumes/0"),
            (
                "a mount that is not updated",
                {"extraVolumeMounts": [{"name": "x", "mountPath": "/x", "subPath": "y"}]},
                "/extraVolumeMounts/0",
            ),
            (
                "the configuration twice",
                {"configFiles": {"config.toml": "x = 1"}},
                "invalid propertyName 'config.toml'",
            ),
            (
                "a Secret over the federation's token",
                {"secrets": {"files": {"federation": "x"}}},
                "invalid propertyName 'federation'",
            ),
            ("a digest that is none", {"image": {"digest": "sha256:1"}}, "/image/digest"),
            ("no instance", {"replicas": 0}, "/replicas"),
            ("a number as text", {"replicas": "3"}, "/replicas"),
        ]:
            self.refused(name, values, place)

    def refused(self, name, values, said):
        with self.subTest(name):
            with self.assertRaises(Refused) as refused:
                template(SETS["minimal"], values)
            self.assertIn("values don't meet the specifications of the schema", str(refused.exception))
            self.assertIn(said, str(refused.exception))
