"""Alerts and dashboards ask for what a running broker exports."""

import json
import re
import unittest
from pathlib import Path

import promql_parser

from chart import CHART, NAMESPACE, RELEASE, REPOSITORY, SETS, objects, of_kind, only, template
from files import BINARY
from running import exported

# The page that names every metric.
DOCUMENT = REPOSITORY / "docs" / "metrics.md"
# What the collector adds to every series, and the series that it makes itself.
TARGET = {"namespace", "job", "pod", "instance", "region", "container", "endpoint"}
OF_THE_COLLECTOR = {"up"}
# What probes of geo-DNS and of other regions ask, all day.
PROBED = "/v1/route"
REQUESTS = "http_server_request_duration_seconds"
# How matchers are written, to whether what they say has to hold.
WANTED = {"MatchOp.Equal": True, "MatchOp.Re": True, "MatchOp.NotEqual": False, "MatchOp.NotRe": False}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def alerts(found):
    return [rule for group in only(found, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]


def dashboards():
    return {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "files" / "dashboards").glob("*.json"))}


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def plain(query):
    """A query without Grafana's own variables."""
    return query.replace("$__rate_interval", "5m").replace("$__range", "1h")


def queries():
    """(where it stands, expression) of every alert, panel and variable."""
    everything = template(SETS["everything"], {"prometheusRule": {"disabled": []}})
    for rule in alerts(everything):
        yield rule["alert"], rule["expr"]
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", plain(target["expr"])


class Exported:
    """The metrics of an OpenMetrics text: the names that there can be, and the labels of the series that there are."""

    def __init__(self, text):
        self.names = {}
        self.labels = {}
        for family, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
            for suffix in SUFFIXES[kind]:
                self.names[family + suffix] = kind
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
            self.labels.setdefault(name, []).append(dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels)))

    def series(self, name):
        """The labels of each series of that name, to be compared."""
        return {frozenset(labels.items()) for labels in self.labels.get(name, [])}

    def unknown(self, name, matchers):
        """What a selector asks for that no series of that name has: a value, or values that no series has together."""
        own = [matcher for matcher in matchers if matcher[0] not in TARGET]
        there = self.labels.get(name, [])
        for label, op, value in own:
            for one in alternatives(op, value):
                if not any(re.fullmatch(one, labels.get(label, "")) for labels in there):
                    yield f"{label} {one}"
        if not any(all(matches(labels, *matcher) for matcher in own) for labels in there):
            yield "all at once"


def alternatives(op, value):
    """The patterns of which a matcher asks for any."""
    return value.split("|") if op in ("MatchOp.Re", "MatchOp.NotRe") else [re.escape(value)]


def matches(labels, label, op, value):
    """Whether the collector would take such a series."""
    return any(re.fullmatch(one, labels.get(label, "")) for one in alternatives(op, value)) == WANTED[op]


def selectors(expression):
    """Every selector of series inside, and the labels that it is grouped by."""
    found = []

    def visit(node, grouped):
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, [(m.name, str(m.op), m.value) for m in node.matchers.matchers], grouped))
        elif isinstance(node, promql_parser.MatrixSelector):
            visit(node.vector_selector, grouped)
        elif isinstance(node, promql_parser.Call):
            for argument in node.args:
                visit(argument, grouped)
        elif isinstance(node, promql_parser.AggregateExpr):
            visit(node.expr, grouped | set(node.modifier.labels if node.modifier else []))
        elif isinstance(node, promql_parser.BinaryExpr):
            joined = set(node.modifier.matching.labels) if node.modifier and node.modifier.matching else set()
            visit(node.lhs, grouped | joined)
            visit(node.rhs, grouped | joined)
        elif isinstance(node, (promql_parser.ParenExpr, promql_parser.UnaryExpr, promql_parser.SubqueryExpr)):
            visit(node.expr, grouped)
        elif not isinstance(node, (promql_parser.NumberLiteral, promql_parser.StringLiteral)):
            raise TypeError(type(node))

    visit(promql_parser.parse(expression), frozenset())
    return found


class Metrics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not Path(BINARY).exists():
            raise FileNotFoundError(f"{BINARY} is not there: cargo build, or name another in UPLOAD_BROKER")
        cls.before, cls.exported = map(Exported, exported())

    def test_the_broker_exports_every_metric_that_is_documented(self):
        # What it did not export, no query could be held to.
        documented = re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)
        names = {name + ("_bucket" if kind == "histogram" else "") for name, kind in documented}
        self.assertEqual(names, {name for name in self.exported.labels if not name.endswith(("_sum", "_count"))})

    def test_every_query_parses_and_names_metrics_that_are_exported(self):
        for where, expression in queries():
            with self.subTest(where):
                found = selectors(expression)
                self.assertTrue(found)
                for name, _, _ in found:
                    self.assertIn(name, self.exported.names.keys() | OF_THE_COLLECTOR)

    def test_every_label_that_is_asked_for_is_exported(self):
        for where, expression in queries():
            for name, matchers, grouped in selectors(expression):
                known = {label for labels in self.exported.labels.get(name, []) for label in labels} | TARGET
                with self.subTest(where):
                    self.assertLessEqual({label for label, _, _ in matchers} | grouped, known, name)

    def test_every_value_that_is_asked_for_is_exported(self):
        for where, expression in queries():
            for name, matchers, _ in selectors(expression):
                with self.subTest(where):
                    if name not in OF_THE_COLLECTOR:
                        self.assertEqual(list(self.exported.unknown(name, matchers)), [], name)

    def test_no_series_that_an_alert_counts_by_begins_with_what_it_counts(self):
        # Its first value would be 1, which is no increase. Of requests there are too many kinds to begin at zero.
        counters = set()
        for rule in alerts(template(SETS["everything"], {"prometheusRule": {"disabled": []}})):
            counters |= {name for name, _, _ in selectors(rule["expr"]) if self.exported.names.get(name) == "counter"}
        self.assertGreater(len(counters), 10)
        for name in counters:
            with self.subTest(name):
                self.assertTrue(self.before.series(name))
                self.assertEqual(self.exported.series(name), self.before.series(name))

    def test_probes_do_not_count_as_requests_of_users(self):
        # So many would make any share of failures small, and any time short, where there are few others. What instances
        # have to do they are a part of: that is a matter of the other dashboard.
        looked_at = set()
        for where, expression in queries():
            for name, matchers, grouped in selectors(expression):
                if name.startswith(REQUESTS) and not where.startswith("dependencies: "):
                    looked_at.add(where)
                    counted = all(matches({"http_route": PROBED}, *one) for one in matchers if one[0] == "http_route")
                    with self.subTest(where):
                        self.assertTrue("http_route" in grouped or not counted)
        self.assertLessEqual({"UploadBrokerErrorBudgetFast", "users: Answered without a failure"}, looked_at)
        self.assertIn(PROBED, {labels["http_route"] for labels in self.exported.labels[f"{REQUESTS}_count"]})

    def test_each_kind_of_mistake_in_a_query_would_be_found(self):
        self.assertNotIn("upload_broker_uploads_created", self.exported.names, "a counter without its suffix")
        self.assertNotIn("upload_broker_http_server_active_requests", self.exported.names, "a prefix too many")
        for wrong in ("rate(up)", "sum(rate(up[5m])", "histgram_quantile(0.9, up)", 'up{job="x}'):
            with self.assertRaises(ValueError, msg=wrong):
                promql_parser.parse(wrong)
        for wrong, unknown in (
            ('storage_calls_total{result="Ok"}', ["result Ok", "all at once"]),
            ('storage_calls_total{result=~"ok|timedout"}', ["result timedout"]),
            ('storage_calls_total{result!="timedout"}', ["result timedout"]),
            ('storage_calls_total{operation="look",class="A"}', ["all at once"]),
            ('storage_calls_total{outcome!="ok"}', ["outcome ok"]),
            ('telemetry_spans_total{result!~"exported|overflowed|undelivered|rejected"}', ["all at once"]),
        ):
            [(name, matchers, _)] = selectors(f"upload_broker_{wrong}")
            self.assertEqual(list(self.exported.unknown(name, matchers)), unknown, wrong)

    def test_dashboards_show_every_metric(self):
        shown = {name for where, expression in queries() if ": " in where for name, _, _ in selectors(expression)}
        # A histogram is shown by its buckets.
        missing = {name for name, kind in self.exported.names.items() if kind != "histogram"} - shown
        buckets = {name for name in self.exported.names if name.endswith("_bucket")} - shown
        self.assertEqual((missing, buckets), (set(), set()), "in no panel of helm/upload-broker/files/dashboards")


class Alerts(unittest.TestCase):
    def test_an_alert_looks_at_its_own_release_only(self):
        for rule in alerts(objects("us-east4")):
            for _, matchers, _ in selectors(rule["expr"]):
                chosen = {(label, value) for label, _, value in matchers}
                self.assertLessEqual({("namespace", NAMESPACE), ("job", RELEASE)}, chosen, rule["alert"])

    def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on(self):
        headings = re.findall(r"^#+ (.+)$", (REPOSITORY / "docs" / "runbook.md").read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        for rule in alerts(objects("us-east4")):
            self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))
            self.assertEqual(rule["labels"]["region"], "us-east4")
            for annotation in ("summary", "description"):
                self.assertRegex(rule["annotations"][annotation], r"\.$")
            page, anchor = rule["annotations"]["runbook_url"].split("#")
            self.assertTrue(page.endswith("/docs/runbook.md"))
            self.assertIn(anchor, anchors)

    def test_a_description_names_labels_that_its_query_leaves(self):
        for rule in alerts(objects("us-east4")):
            kept = {label for _, _, grouped in selectors(rule["expr"]) for label in grouped}
            if not re.search(r"\b(sum|avg|min|max|histogram_quantile)\b", rule["expr"]):
                kept |= TARGET
            named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"]))
            self.assertLessEqual(named, kept, rule["alert"])

    def test_an_alert_can_be_left_out(self):
        names = {rule["alert"] for rule in alerts(objects("everything"))}
        self.assertNotIn("UploadBrokerLimitsRefuse", names)
        self.assertIn("UploadBrokerDown", names)


class Dashboards(unittest.TestCase):
    def test_they_arrive_unchanged_where_the_sidecar_looks(self):
        found = [
            one
            for one in of_kind(objects("everything"), "ConfigMap")
            if "grafana_dashboard" in one["metadata"]["labels"]
        ]
        self.assertEqual([one["metadata"]["labels"]["grafana_dashboard"] for one in found], ["1", "1"])
        texts = [json.loads(text) for one in found for text in one["data"].values()]
        self.assertCountEqual(texts, dashboards().values())

    def test_ids_are_unique_and_panels_do_not_overlap(self):
        uids = [dashboard["uid"] for dashboard in dashboards().values()]
        self.assertEqual(len(uids), len(set(uids)))
        for name, dashboard in dashboards().items():
            ids = [panel["id"] for panel in dashboard["panels"]]
            self.assertEqual(len(ids), len(set(ids)), name)
            places = set()
            for panel in dashboard["panels"]:
                at = panel["gridPos"]
                self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
                cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
                self.assertFalse(cells & places, panel["title"])
                places |= cells

    def test_every_panel_says_what_it_shows_and_looks_at_what_was_chosen(self):
        for name, dashboard in dashboards().items():
            variables = {variable["name"] for variable in dashboard["templating"]["list"]}
            for panel in panels(dashboard):
                with self.subTest(f"{name}: {panel['title']}"):
                    self.assertRegex(panel["description"], r"\.$")
                    for target in panel["targets"]:
                        for _, matchers, _ in selectors(plain(target["expr"])):
                            chosen = {label: value for label, _, value in matchers}
                            for label in ("namespace", "job", "region"):
                                self.assertEqual(chosen[label], f"${label}")
                                self.assertIn(label, variables)
                        # A legend names labels that the query leaves.
                        grouped = {label for _, _, group in selectors(plain(target["expr"])) for label in group}
                        self.assertLessEqual(set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])), grouped)
