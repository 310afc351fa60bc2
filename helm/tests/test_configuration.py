"""The rendered configuration is the one that was given, and the broker takes it."""

import tempfile
import tomllib
import unittest
from pathlib import Path

import yaml

from chart import SETS, configuration, objects, template
from files import BINARY, lay_out, run


def given(name):
    """`config` as the value files of a set have it, later ones over earlier ones."""
    merged = {}
    for file in SETS[name]:
        overlay(merged, yaml.safe_load(file.read_text()).get("config", {}))
    return merged


def overlay(below, above):
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            overlay(below[key], value)
        else:
            below[key] = value


def check(found):
    """What `upload-broker check` says of the configuration in a pod."""
    with tempfile.TemporaryDirectory() as folder:
        path, environment = lay_out(found, Path(folder))
        # A metadata server that there may be is nobody's business here: it is looked for where nobody listens.
        return run(BINARY, "check", "--config", path, env={**environment, "GCE_METADATA_HOST": "127.0.0.1:1"})


class Configuration(unittest.TestCase):
    def setUp(self):
        self.assertTrue(Path(BINARY).exists(), f"{BINARY} is not there: cargo build, or name another in UPLOAD_BROKER")

    def test_toml_says_what_the_values_say(self):
        for name in SETS:
            with self.subTest(name):
                written = tomllib.loads(configuration(objects(name))["data"]["config.toml"])
                expected = given(name)
                server = {"listen": "0.0.0.0:8443", "admin_listen": "0.0.0.0:9090", **expected["server"]}
                [own] = [region["url"] for region in expected["regions"] if region["name"] == expected["region"]]
                self.assertEqual(written, {**expected, "server": {"public_url": own, **server}})

    def test_numbers_stay_what_they_are(self):
        numbers = {"whole": 5, "large": 5497558138880, "negative": -1, "half": 0.5, "zero": 0, "lists": [[1, 2.5], [3]]}
        found = template(SETS["minimal"], {"config": {"sweeper": numbers}})
        written = tomllib.loads(configuration(found)["data"]["config.toml"])["sweeper"]
        for key, value in numbers.items():
            self.assertEqual((written[key], type(written[key])), (value, type(value)), key)
        self.assertEqual([[type(item) for item in inner] for inner in written["lists"]], [[int, float], [int]])

    def test_files_beside_it_are_what_was_given(self):
        texts = {"a": "  indented\n\tfirst\n", "b": "no end of line", "c": "", "d": "<&> {{ .Values }} ü\n\n"}
        data = configuration(template(SETS["minimal"], {"configFiles": texts}))["data"]
        self.assertEqual({name: text for name, text in data.items() if name != "config.toml"}, texts)

    def test_the_broker_takes_every_rendered_configuration(self):
        for name in SETS:
            with self.subTest(name):
                done = check(objects(name))
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("nothing wrong", done.stdout)

    def test_a_wrong_configuration_is_noticed_here(self):
        for name, section in [
            ("a key that there is not", {"server": {"pubic_url": "https://eu.example.com"}}),
            ("a policy that would overwrite", {"policies": [{"name": "videos", "object": "videos/no-id"}]}),
        ]:
            with self.subTest(name):
                done = check(template(SETS["minimal"], {"config": section}))
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertIn("config.toml", done.stderr)
