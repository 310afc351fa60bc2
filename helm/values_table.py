#!/usr/bin/env python3
"""Writes the table of values in upload-broker/README.md from the comments of upload-broker/values.yaml.

    python3 helm/values_table.py            writes it
    python3 helm/values_table.py --check    fails if it is not up to date

It reads the plain form that values.yaml is kept in, and so needs nothing but Python: keys, two spaces for each level,
and above each value the comment that is its description. A list or map that does not fit a line is not shown.
"""

import re
import sys
from pathlib import Path

CHART = Path(__file__).resolve().parent / "upload-broker"
BEGIN = "<!-- values: written by helm/values_table.py -->\n"
END = "<!-- end of values -->\n"
ENTRY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_][A-Za-z0-9_]*):(?: (?P<value>.+))?$")


def read(text):
    """Yields (key, default, description) for each value, in the order of the file."""
    lines = text.splitlines()
    levels = []
    comment = []
    index = 0
    while index < len(lines):
        line = lines[index]
        index += 1
        if not line.strip():
            comment = []
        elif line.lstrip().startswith("#"):
            comment.append(line.strip().lstrip("#").strip())
        else:
            match = ENTRY.match(line)
            if not match:
                raise SystemExit(f"values.yaml:{index}: neither a comment nor a key with a value: {line!r}")
            depth = len(match["indent"]) // 2
            levels[depth:] = [match["key"]]
            value = match["value"]
            if value is None:
                body = []
                while index < len(lines) and lines[index].strip() and lines[index].startswith(match["indent"] + "  "):
                    body.append(lines[index])
                    index += 1
                described = any(below.lstrip().startswith("#") for below in body)
                if comment or not described:
                    yield ".".join(levels), None, " ".join(comment)
                if described:
                    index -= len(body)
            else:
                yield ".".join(levels), value, " ".join(comment)
            comment = []


def table(text):
    """The table, as Markdown."""
    rows = ["| value | default | what it is |", "|---|---|---|"]
    for key, default, description in read(text):
        if not description:
            raise SystemExit(f"values.yaml: {key} has no comment")
        shown = "see `values.yaml`" if default is None else f"`{default}`"
        rows.append(f"| `{key}` | {shown} | {description} |")
    return "\n".join(rows) + "\n"


def main():
    readme = CHART / "README.md"
    kept = readme.read_text()
    before, rest = kept.split(BEGIN)
    after = rest.split(END)[1]
    made = before + BEGIN + table((CHART / "values.yaml").read_text()) + END + after
    if sys.argv[1:] == ["--check"]:
        if made != kept:
            raise SystemExit("the table in helm/upload-broker/README.md is old: python3 helm/values_table.py")
    elif sys.argv[1:]:
        raise SystemExit(__doc__)
    else:
        readme.write_text(made)


if __name__ == "__main__":
    main()
