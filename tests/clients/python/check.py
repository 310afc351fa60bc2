"""Runs checks by name, such as `sessions.chunked`, and says which ones passed."""

import importlib
import sys
import traceback


def main(names):
    failed = 0
    for name in names:
        module, function = name.split(".")
        try:
            getattr(importlib.import_module(module), function)()
            print(f"passed {name}", flush=True)
        except Exception:  # The next check may tell more about this one.
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
