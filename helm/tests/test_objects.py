"""What must hold of every object that the chart makes."""

import copy
import json
import re
import unittest

import jsonschema
import kubernetes_validate

from chart import (
    KUBERNETES,
    NAMESPACE,
    REGIONS,
    RELEASE,
    REPOSITORY,
    SETS,
    TESTS,
    broker,
    configuration,
    example,
    named,
    objects,
    of_kind,
    only,
    pods,
    template,
    texts,
)
from restricted import flatten, violations

CUSTOM = {"HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
# The broker's own time to end after SIGTERM, in seconds, as its code says.
SERVE = (REPOSITORY / "src" / "cli" / "serve.rs").read_text()
DRAIN = int(re.search(r"LONGEST_END: Duration = Duration::from_secs\((\d+)\)", SERVE)[1])


def problems(one, kubernetes):
    """What a strict API server says against the object."""
    if one["kind"] in CUSTOM:
        schema = json.loads((TESTS / "schemas" / f"{one['kind'].lower()}.json").read_text())
        return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(one)]
    try:
        kubernetes_validate.validate(one, kubernetes, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


def called(found):
    """The ports that instances may call, by the first network that they may be in; None stands for anywhere."""
    ports = {}
    for rule in only(found, "NetworkPolicy")["spec"]["egress"]:
        [network] = [peer["ipBlock"]["cidr"] for peer in rule.get("to", [])[:1]] or [None]
        ports.setdefault(network, set()).update(port["port"] for port in rule["ports"])
    return ports


class Validation(unittest.TestCase):
    def test_every_object_is_valid_in_every_version(self):
        for kubernetes in KUBERNETES:
            for name in SETS:
                for one in objects(name, kubernetes):
                    with self.subTest(f"{one['kind']} of {name} in {kubernetes}"):
                        self.assertEqual(problems(one, kubernetes), [])

    def test_a_service_monitor_is_valid_too(self):
        found = template(SETS["minimal"], {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}})
        self.assertEqual(problems(only(found, "ServiceMonitor"), KUBERNETES[0]), [])

    def test_a_key_too_many_is_found_in_every_kind(self):
        found = objects("everything") + template(SETS["minimal"], {"serviceMonitor": {"enabled": True}})
        for one in {one["kind"]: one for one in found}.values():
            spoilt = copy.deepcopy(one)
            # The keys of a ConfigMap and a ServiceAccount are on their top level.
            spoilt.get("spec", spoilt)["sepc"] = 1
            with self.subTest(one["kind"]):
                self.assertNotEqual(problems(spoilt, KUBERNETES[-1]), [])

    def test_names_and_labels_are_what_clusters_take(self):
        for name in SETS:
            for one in objects(name):
                with self.subTest(f"{one['kind']} of {name}"):
                    self.assertRegex(one["metadata"]["name"], r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
                    for value in one["metadata"]["labels"].values():
                        self.assertRegex(value, r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")

    def test_no_object_is_made_twice(self):
        for name in SETS:
            keys = [(one["kind"], one["metadata"]["name"]) for one in objects(name)]
            self.assertEqual(len(keys), len(set(keys)), name)


class Pods(unittest.TestCase):
    def test_every_pod_keeps_to_the_restricted_standard(self):
        for name in SETS:
            for pod, _, spec in pods(objects(name)):
                with self.subTest(f"{pod} of {name}"):
                    self.assertEqual(violations(spec), [])

    def test_the_hook_is_among_the_pods(self):
        self.assertEqual([name.split()[0] for name, _, _ in pods(objects("minimal"))].count("Pod"), 1)

    def test_each_break_of_the_standard_would_be_found(self):
        [spec] = [spec for name, _, spec in pods(objects("minimal")) if name.startswith("Deployment")]
        container = ("containers", 0, "securityContext")
        for rule, path, value in [
            ("hostNetwork", ("hostNetwork",), True),
            ("privileged", (*container, "privileged"), True),
            ("allowPrivilegeEscalation", (*container, "allowPrivilegeEscalation"), True),
            ("runAsNonRoot", (*container, "runAsNonRoot"), False),
            ("runAsUser", (*container, "runAsUser"), 0),
            ("seccompProfile", ("securityContext", "seccompProfile"), {"type": "Unconfined"}),
            ("drop ALL", (*container, "capabilities"), {"drop": ["NET_RAW"]}),
            ("add", (*container, "capabilities", "add"), ["SYS_ADMIN"]),
            ("hostPort", ("containers", 0, "ports", 0, "hostPort"), 443),
            ("readOnlyRootFilesystem", (*container, "readOnlyRootFilesystem"), False),
            ("volume hostPath", ("volumes", 0), {"name": "config", "hostPath": {"path": "/"}}),
            ("automountServiceAccountToken", ("automountServiceAccountToken",), True),
        ]:
            spoilt = copy.deepcopy(spec)
            *above, last = path
            place = spoilt
            for step in above:
                place = place[step]
            place[last] = value
            with self.subTest(rule):
                self.assertEqual(violations(spoilt), [rule])

    def test_nothing_is_mounted_as_a_single_file(self):
        for name in SETS:
            for one in objects(name):
                keys = {key for value in flatten(one) if isinstance(value, dict) for key in value}
                self.assertFalse(keys & {"subPath", "subPathExpr"}, f"{one['kind']} of {name}")

    def test_every_mount_has_its_volume_and_every_volume_its_mount(self):
        for name in SETS:
            for pod, _, spec in pods(objects(name)):
                mounts = [mount for container in spec["containers"] for mount in container.get("volumeMounts", [])]
                paths = [mount["mountPath"] for mount in mounts]
                with self.subTest(f"{pod} of {name}"):
                    self.assertEqual(
                        {mount["name"] for mount in mounts}, {volume["name"] for volume in spec.get("volumes", [])}
                    )
                    # One inside another would be a directory made in a mount that nobody can write to.
                    self.assertFalse([(a, b) for a in paths for b in paths if a != b and b.startswith(f"{a}/")])

    def test_the_configuration_is_mounted_where_the_command_looks(self):
        found = objects("minimal")
        container = broker(found)
        [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "config"]
        [volume] = [
            v for v in only(found, "Deployment")["spec"]["template"]["spec"]["volumes"] if v["name"] == "config"
        ]
        self.assertEqual(volume["configMap"]["name"], configuration(found)["metadata"]["name"])
        self.assertEqual(container["args"], ["serve", "--config", f"{mount['mountPath']}/config.toml"])

    def test_probes_ask_the_admin_port(self):
        for name in SETS:
            container = broker(objects(name))
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            self.assertEqual(ports["admin"], 9090)
            for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
                with self.subTest(f"{probe} of {name}"):
                    self.assertEqual(container[probe]["httpGet"], {"path": path, "port": "admin"})
            # A look at Redis may take a second, and the answer must still arrive.
            self.assertGreater(container["readinessProbe"]["timeoutSeconds"], 1)

    def test_there_is_time_to_drain(self):
        for name in SETS:
            spec = only(objects(name), "Deployment")["spec"]["template"]["spec"]
            sleep = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], sleep + DRAIN, name)

    def test_memory_is_enough_for_all_connections_with_a_quarter_left(self):
        limit = broker(objects("minimal"))["resources"]["limits"]["memory"]
        self.assertRegex(limit, r"^\d+Mi$")
        # MiB when idle, and KiB of each connection: what values.yaml reckons with.
        needed = 20 + 10_000 * 36 / 1024
        self.assertLessEqual(needed, int(limit.removesuffix("Mi")) * 3 / 4)

    def test_a_rollout_takes_no_instance_away_before_another_is_ready(self):
        for name in SETS:
            rolling = only(objects(name), "Deployment")["spec"]["strategy"]["rollingUpdate"]
            self.assertEqual(rolling["maxUnavailable"], 0)
            self.assertGreaterEqual(rolling["maxSurge"], 1)

    def test_an_image_is_named_by_its_digest_where_there_is_one(self):
        for name, image in [
            ("minimal", "registry.example.com/upload-broker:0.1.0"),
            ("everything", "registry.example.com/upload-broker@sha256:" + "0123456789abcdef" * 4),
        ]:
            self.assertEqual(
                {container["image"] for _, _, spec in pods(objects(name)) for container in spec["containers"]}, {image}
            )

    def test_the_hook_asks_the_service_for_readiness(self):
        for name in SETS:
            found = objects(name)
            hook = only(found, "Pod")
            service = only(found, "Service", component="metrics")["metadata"]["name"]
            self.assertEqual(hook["metadata"]["annotations"]["helm.sh/hook"], "test")
            self.assertEqual(hook["spec"]["containers"][0]["args"], ["healthcheck", f"http://{service}:9090/readyz"])


class Wiring(unittest.TestCase):
    def test_selectors_find_the_pods_of_the_service_and_no_others(self):
        for name in SETS:
            found = objects(name)
            deployment = only(found, "Deployment")
            selectors = [deployment["spec"]["selector"]["matchLabels"]]
            selectors += [one["spec"]["selector"] for one in of_kind(found, "Service")]
            selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(found, "PodDisruptionBudget")]
            selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind(found, "PodMonitor")]
            selectors += [one["spec"]["podSelector"]["matchLabels"] for one in of_kind(found, "NetworkPolicy")]
            spread = deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
            selectors += [one["labelSelector"]["matchLabels"] for one in spread]
            for pod, metadata, _ in pods(found):
                for selector in selectors:
                    with self.subTest(f"{pod} of {name}"):
                        chosen = selector.items() <= metadata["labels"].items()
                        self.assertEqual(chosen, pod.startswith("Deployment"), selector)

    def test_services_lead_to_ports_that_there_are(self):
        for name in SETS:
            found = objects(name)
            ports = {port["name"] for port in broker(found)["ports"]}
            for service in of_kind(found, "Service"):
                self.assertLessEqual({port["targetPort"] for port in service["spec"]["ports"]}, ports)

    def test_the_load_balancer_of_the_examples_takes_its_address_and_keeps_that_of_clients(self):
        for region in REGIONS:
            service = named(objects(region), "Service", "upload-broker")
            annotations = service["metadata"]["annotations"]
            # Without it, GKE does not read the other.
            self.assertEqual(annotations["cloud.google.com/l4-rbs"], "enabled")
            self.assertEqual(annotations["networking.gke.io/load-balancer-ip-addresses"], f"upload-broker-{region}")
            self.assertEqual(service["spec"]["externalTrafficPolicy"], "Local")
            # Two questions of the load balancer, 3 s apart, find that a node has no instance any more.
            hook = broker(objects(region))["lifecycle"]["preStop"]
            self.assertGreater(hook["sleep"]["seconds"], 2 * 3)

    def test_the_class_of_a_load_balancer_is_only_that_of_one(self):
        kept = {"loadBalancerClass": "example.com/balancer"}
        for kind, expected in [("LoadBalancer", "example.com/balancer"), ("ClusterIP", None)]:
            found = template(SETS["minimal"], {"service": {**kept, "type": kind}})
            spec = named(found, "Service", "upload-broker")["spec"]
            self.assertEqual(spec.get("loadBalancerClass"), expected, kind)
            self.assertEqual([problems(one, KUBERNETES[0]) for one in of_kind(found, "Service")], [[], []])
        self.assertNotIn("loadBalancerClass", named(objects("us-east4"), "Service", "upload-broker")["spec"])

    def test_the_admin_port_is_not_public(self):
        for name in SETS:
            found = objects(name)
            for service in of_kind(found, "Service"):
                exposes = any(port["targetPort"] == "admin" for port in service["spec"]["ports"])
                headless = service["spec"].get("clusterIP") == "None"
                self.assertEqual(exposes, headless, service["metadata"]["name"])
            for policy in of_kind(found, "NetworkPolicy"):
                for rule in policy["spec"]["ingress"]:
                    if 9090 in [port["port"] for port in rule["ports"]]:
                        self.assertTrue(rule["from"], "an empty list is everybody")

    def test_what_stands_in_front_leads_to_the_public_service(self):
        found = objects("everything")
        public = named(found, "Service", only(found, "Deployment")["metadata"]["name"])
        [port] = public["spec"]["ports"]
        for rule in only(found, "Ingress")["spec"]["rules"]:
            [path] = rule["http"]["paths"]
            self.assertEqual(
                path["backend"]["service"], {"name": public["metadata"]["name"], "port": {"name": port["name"]}}
            )
        [rule] = only(found, "HTTPRoute")["spec"]["rules"]
        self.assertEqual(rule["backendRefs"], [{"name": public["metadata"]["name"], "port": port["port"]}])
        self.assertEqual(only(found, "HTTPRoute")["spec"]["hostnames"], ["eu.uploads.example.com"])

    def test_the_hook_may_reach_the_admin_port(self):
        found = objects("minimal")
        [rule] = [rule for rule in only(found, "NetworkPolicy")["spec"]["ingress"] if rule["ports"][0]["port"] == 9090]
        labels = only(found, "Pod")["metadata"]["labels"].items()
        chosen = [peer["podSelector"]["matchLabels"].items() for peer in rule["from"] if "podSelector" in peer]
        self.assertTrue(any(selector <= labels for selector in chosen))

    def test_instances_may_go_where_they_must(self):
        for name in set(SETS) - {"nothing"}:
            rules = only(objects(name), "NetworkPolicy")["spec"]["egress"]
            reached = {(port["port"], port["protocol"]) for rule in rules for port in rule["ports"]}
            redis = 6378 if name in REGIONS else 6379
            needed = {(53, "UDP"), (53, "TCP"), (443, "TCP"), (redis, "TCP"), (80, "TCP"), (988, "TCP")}
            self.assertLessEqual(needed, reached, name)

    def test_what_the_configuration_names_may_be_reached(self):
        config = {
            "region": "europe-west1",
            "store": {"url": "rediss+sentinel://sentinel-0:26380,sentinel-1/main"},
            "storage": {"endpoint": "https://storage.example:8001"},
            "issuers": [
                {"issuer": "https://issuer.example:8002"},
                {"issuer": "https://issuer.example:9002", "jwks_url": "https://keys.example:8003/keys?of=all:1"},
                {"issuer": "https://issuer.example:9003", "jwks_file": "jwks.json"},
            ],
            "regions": [
                {"name": "europe-west1", "bucket": "eu", "url": "https://eu.example:9004"},
                {"name": "us-east4", "bucket": "us", "url": "https://us.example:8004"},
                {"name": "asia-east1", "bucket": "asia", "url": "https://asia.example/"},
            ],
            "notifications": {"jwks_url": "https://[fd00::1]:8005/keys"},
            "webhooks": [
                {"url": "https://backend.example:8006/hooks"},
                {"url": "http://127.0.0.1:9006/"},
                {"url": "http://[::1]:9007"},
            ],
            "telemetry": {"otlp_endpoint": "http://collector:4318"},
            "server": {"allowed_origins": ["https://app.example:9008"]},
        }
        proxies = {"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "example:9009", "http_proxy": "proxy:3129"}
        values = {
            "config": config,
            "configFiles": {"jwks.json": "{}"},
            "env": proxies,
            "networkPolicy": {"redisTo": [{"ipBlock": {"cidr": "10.0.0.0/24"}}]},
        }
        self.assertEqual(
            called(template(SETS["minimal"], values)),
            {
                None: {53, 443, 8001, 8002, 8003, 8004, 8005, 8006, 4318, 3128, 3129},
                "10.0.0.0/24": {6379, 26379, 26380},
                "169.254.169.254/32": {80, 988},
            },
        )
        # And nothing else is, where nothing is named.
        self.assertEqual(
            called(objects("minimal")), {None: {53, 443, 6379}, "169.254.169.254/32": {80, 988}}
        )

    def test_the_broker_calls_nobody_else(self):
        named_there = {re.sub(r"\[\d+\]", "", path) for path, text in texts(example()) if "://" in text}
        called_there = {
            *("storage.endpoint", "issuers.issuer", "issuers.jwks_url", "regions.url", "store.url"),
            *("notifications.issuer", "notifications.jwks_url", "webhooks.url", "telemetry.otlp_endpoint"),
        }
        # Who they are is told, and not asked.
        told = {"server.public_url", "server.allowed_origins", "notifications.audience"}
        self.assertEqual(named_there, called_there | told, "should upload-broker.calledPorts know of it?")

    def test_a_budget_leaves_a_node_to_be_drained(self):
        for name in set(SETS) - {"nothing"}:
            found = objects(name)
            scalers = of_kind(found, "HorizontalPodAutoscaler")
            fewest = scalers[0]["spec"]["minReplicas"] if scalers else only(found, "Deployment")["spec"]["replicas"]
            self.assertLess(only(found, "PodDisruptionBudget")["spec"]["minAvailable"], fewest, name)

    def test_a_scaled_deployment_does_not_say_how_many(self):
        # It would take the scaler's number back at every upgrade.
        self.assertNotIn("replicas", only(objects("everything"), "Deployment")["spec"])

    def test_series_have_the_release_as_their_job(self):
        found = objects("everything")
        label = only(found, "PodMonitor")["spec"]["jobLabel"]
        self.assertEqual(only(found, "Deployment")["spec"]["template"]["metadata"]["labels"][label], "upload-broker")
        found = template(SETS["minimal"], {"serviceMonitor": {"enabled": True}})
        monitor = only(found, "ServiceMonitor")["spec"]
        chosen = [
            one
            for one in of_kind(found, "Service")
            if monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
        ]
        self.assertEqual([one["metadata"]["labels"][monitor["jobLabel"]] for one in chosen], ["upload-broker"])
        self.assertEqual([one["spec"]["ports"][0]["name"] for one in chosen], [monitor["endpoints"][0]["port"]])


    def test_alerts_look_at_the_series_that_something_makes(self):
        for name, values, job in [
            ("a ServiceMonitor", {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}, RELEASE),
            ("something else", {"prometheusRule": {"enabled": True, "job": "gmp/broker"}}, "gmp/broker"),
        ]:
            with self.subTest(name):
                groups = only(template(SETS["minimal"], values), "PrometheusRule")["spec"]["groups"]
                for rule in [rule for group in groups for rule in group["rules"]]:
                    self.assertIn(f'{{namespace="{NAMESPACE}",job="{job}"', rule["expr"], rule["alert"])


class Secrets(unittest.TestCase):
    def test_no_object_holds_a_secret(self):
        looks_secret = re.compile(r"PRIVATE KEY|private_key|://[^/@\s\"]*:(?!\$\()[^/@\s\"]*@|whsec_|refresh_token")
        for name in SETS:
            self.assertEqual(of_kind(objects(name), "Secret"), [])
            for one in objects(name):
                for text in flatten(one):
                    if isinstance(text, str):
                        self.assertNotRegex(text, looks_secret, f"{one['kind']} of {name}")

    def test_a_variable_with_a_secret_names_where_it_is(self):
        by_name = {variable["name"]: variable for variable in broker(objects("everything"))["env"]}
        self.assertEqual(
            by_name["REDIS_PASSWORD"]["valueFrom"], {"secretKeyRef": {"name": "redis", "key": "redis-password"}}
        )
        self.assertEqual(
            by_name["UPLOAD_BROKER_STORE__URL"]["value"],
            "rediss+sentinel://broker:$(REDIS_PASSWORD)@sentinel-0:26379,sentinel-1:26379/main",
        )
        self.assertEqual(
            by_name["HTTPS_PROXY"]["valueFrom"], {"secretKeyRef": {"name": "proxy", "key": "https-proxy"}}
        )
        # The kubelet replaces only what stands before.
        names = list(by_name)
        self.assertLess(names.index("REDIS_PASSWORD"), names.index("UPLOAD_BROKER_STORE__URL"))
        by_name = {variable["name"]: variable for variable in broker(objects("us-east4"))["env"]}
        self.assertEqual(
            by_name["UPLOAD_BROKER_STORE__URL"]["valueFrom"],
            {"secretKeyRef": {"name": "upload-broker-redis", "key": "url"}},
        )

    def test_mounted_secrets_are_for_the_user_of_the_image_alone(self):
        spec = only(objects("everything"), "Deployment")["spec"]["template"]["spec"]
        self.assertEqual(spec["securityContext"]["fsGroup"], 65532)
        for volume in spec["volumes"]:
            for kind in ("secret", "projected"):
                if kind in volume:
                    self.assertEqual(volume[kind]["defaultMode"], 0o440, volume["name"])
