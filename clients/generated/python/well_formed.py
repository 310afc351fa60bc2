"""Reads the generated Swift and Dart files, and says where one is not well-formed: FOLDER has `swift` and `dart`."""

import sys
from pathlib import Path

import tree_sitter
import tree_sitter_dart
import tree_sitter_swift


def first_error(node):
    """The innermost place that the grammar does not allow."""
    inner = next((child for child in node.children if child.has_error or child.is_missing), None)
    return node if inner is None or node.is_error else first_error(inner)


found = 0
for name, grammar in (("swift", tree_sitter_swift), ("dart", tree_sitter_dart)):
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    # What the generator brings along whatever the document says is not ours to judge.
    files = [file for file in Path(sys.argv[1], name).rglob(f"*.{name}") if "Infrastructure" not in file.parts]
    assert len(files) > 30, f"only {len(files)} files of {name}"
    for file in files:
        tree = parser.parse(file.read_bytes())
        if tree.root_node.has_error:
            found += 1
            error = first_error(tree.root_node)
            print(f"{file}:{error.start_point.row + 1}: {error.text[:80]!r}")
if found:
    sys.exit(1)
print("passed")
