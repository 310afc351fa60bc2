"""Runs the tests of the chart: target/clients/chart/bin/python -B helm/tests [NAME…]

A name picks the tests that have it in theirs. The last line counts what passed and failed.
"""

import sys
import unittest
from pathlib import Path


class Result(unittest.TextTestResult):
    """Tells a test by its sentence."""

    def getDescription(self, test):
        case = getattr(test, "test_case", test)
        part = f" ({test._subDescription()})" if case is not test else ""
        return f"{type(case).__module__}: {getattr(case, '_testMethodName', case)}{part}"


def chosen(suite, names):
    """The tests of the suite that have one of the names in theirs."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from chosen(test, names)
        elif not names or any(name in test.id() for name in names):
            yield test


def main():
    folder = Path(__file__).resolve().parent
    found = unittest.defaultTestLoader.discover(str(folder), top_level_dir=str(folder))
    suite = unittest.TestSuite(chosen(found, sys.argv[1:]))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result).run(suite)
    # A test with sub-cases fails once, however many of them do.
    failed = len({getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors})
    failed += len(result.unexpectedSuccesses)
    print(f"{result.testsRun - failed} passed, {failed} failed")
    sys.exit(0 if result.wasSuccessful() and result.testsRun else 1)


if __name__ == "__main__":
    main()
