"""Three regions differ only where they should, and a restart is only for what needs one."""

import fnmatch
import itertools
import re
import tomllib
import unittest

import yaml

from chart import CHART, EXAMPLES, REGIONS, SETS, configuration, objects, only, template
from files import SECRETS

# Where the objects of two regions may differ.
ALLOWED = [
    # The region itself, and what clients call it.
    "ConfigMap/upload-broker/data/config.toml/region",
    "ConfigMap/upload-broker/data/config.toml/server/public_url",
    # Pods are replaced when these change.
    "Deployment/upload-broker/spec/template/metadata/annotations/checksum/config",
    # As whom it calls storage, the address that DNS names, and where its Redis is.
    "ServiceAccount/upload-broker/metadata/annotations/iam.gke.io/gcp-service-account",
    "Service/upload-broker/metadata/annotations/networking.gke.io/load-balancer-ip-addresses",
    "NetworkPolicy/upload-broker/spec/egress/2/to/0/ipBlock/cidr",
    # The region as a label of series and alerts.
    "PodMonitor/upload-broker/spec/podMetricsEndpoints/0/relabelings/0/replacement",
    "PrometheusRule/upload-broker/spec/groups/*/rules/*/labels/region",
]


def leaves(value, path=()):
    """Every scalar inside, by its path; the configuration by the paths of its keys."""
    if path and path[-1] == "config.toml" and isinstance(value, str):
        value = tomllib.loads(value)
    if isinstance(value, (dict, list)):
        if not value:
            yield "/".join(path), value
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, str(key)))
    else:
        yield "/".join(path), value


def all_leaves(found):
    return dict(itertools.chain.from_iterable(leaves(one, (one["kind"], one["metadata"]["name"])) for one in found))


def checksum(values):
    found = template(SETS["minimal"], values)
    return only(found, "Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]


class Regions(unittest.TestCase):
    def test_regions_differ_only_where_they_should(self):
        for one, other in itertools.combinations(REGIONS, 2):
            here, there = all_leaves(objects(one)), all_leaves(objects(other))
            differing = {path for path in here.keys() | there.keys() if here.get(path) != there.get(path)}
            unexpected = [path for path in differing if not any(fnmatch.fnmatch(path, allowed) for allowed in ALLOWED)]
            self.assertEqual(unexpected, [], f"{one} and {other}")
            # And there they must: a copied file with one place forgotten would pass otherwise.
            for allowed in ALLOWED:
                self.assertTrue(
                    any(fnmatch.fnmatch(path, allowed) for path in differing), f"{allowed} of {one} and {other}"
                )

    def test_each_region_is_called_by_its_own_address(self):
        for region in REGIONS:
            written = tomllib.loads(configuration(objects(region))["data"]["config.toml"])
            self.assertEqual(written["region"], region)
            self.assertEqual(written["server"]["public_url"], f"https://{region}.uploads.example.com")

    def test_a_region_that_only_the_machine_knows_is_no_label(self):
        # The word `auto` would name a region that there is not, and all regions would have it in common.
        config = {"region": "auto", "server": {"public_url": "https://eu.uploads.example.com"}}
        for kind, list_name, value in [
            ("PodMonitor", "podMetricsEndpoints", "podMonitor"),
            ("ServiceMonitor", "endpoints", "serviceMonitor"),
        ]:
            values = {value: {"enabled": True}, "prometheusRule": {"enabled": True}}
            found = template(SETS["minimal"], {**values, "config": config})
            [endpoint] = only(found, kind)["spec"][list_name]
            self.assertNotIn("relabelings", endpoint)
            # That of an upload, which the broker says itself, stays.
            self.assertTrue(endpoint["honorLabels"])
            for group in only(found, "PrometheusRule")["spec"]["groups"]:
                for rule in group["rules"]:
                    self.assertEqual(rule["labels"].keys(), {"severity"}, rule["alert"])
            says = [path for path, leaf in all_leaves(found).items() if leaf == "auto"]
            self.assertEqual(says, ["ConfigMap/upload-broker/data/config.toml/region"])
            # And where it is named, it is one.
            [endpoint] = only(template(SETS["minimal"], values), kind)["spec"][list_name]
            self.assertEqual(endpoint["relabelings"], [{"targetLabel": "region", "replacement": "europe-west1"}])

    def test_every_region_of_the_examples_has_its_file(self):
        common = yaml.safe_load((EXAMPLES / "common.yaml").read_text())
        files = {path.stem for path in EXAMPLES.glob("*.yaml")} - {"common"}
        self.assertEqual({region["name"] for region in common["config"]["regions"]}, files)

    def test_a_change_replaces_the_pods_only_where_it_must(self):
        before = checksum({})
        keys = [{"id": "k2", "file": f"{SECRETS}session-keys/k2"}]
        limit = {"config": {"policies": [{"name": "videos", "object": "videos/{sub}/{id}", "max_active": 2}]}}
        self.assertEqual(checksum({"replicas": 4, "logFilter": "debug"}), before)
        self.assertEqual(checksum(limit), before, "the broker reads policies again by itself")
        self.assertEqual(checksum({"config": {"server": {"allowed_origins": ["https://a.example"]}}}), before)
        self.assertEqual(checksum({"config": {"sweeper": {"idle_after": "20m"}}}), before)
        self.assertEqual(checksum({"config": {"store": {"encryption_keys": keys}}}), before)
        for fixed in (
            {"store": {"key_prefix": "other"}},
            {"server": {"tls": {"certificate": f"{SECRETS}session-keys/a.crt", "key": f"{SECRETS}session-keys/a.key"}}},
            {"storage": {"timeout": "5s"}},
            {"policies": [{"name": "videos", "object": "videos/{sub}/{id}", "transfers": ["simple"]}]},
        ):
            self.assertNotEqual(checksum({"config": fixed}), before, fixed)
        self.assertNotEqual(checksum({"configFiles": {"roots.pem": "x"}}), before)
        # Who wants a rollout for everything has it.
        none = {"reloadedSections": []}
        self.assertNotEqual(checksum({**none, **limit}), checksum(none))

    def test_the_list_names_what_the_broker_reads_again(self):
        source = (CHART.parent.parent / "src" / "config" / "compare.rs").read_text()
        listed = re.findall(r'"([a-z_.]+)"', source[source.index("const RELOADED") :].split("];")[0])
        self.assertCountEqual(yaml.safe_load((CHART / "values.yaml").read_text())["reloadedSections"], listed)
