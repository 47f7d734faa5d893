"""Which cases of a test are run by `make test`, and which by `make test-all` alone."""

import pytest


def quick(cases, chosen):
    """Returns all cases, marked as `whole` where they are not among the chosen.

    Args:
      cases: values for `pytest.mark.parametrize`, tuples where it names several.
      chosen: of these, what `make test` runs.
    """
    cases, chosen = list(cases), list(chosen)
    unknown = [case for case in chosen if case not in cases]
    assert not unknown, unknown
    return [case if case in chosen else whole(case) for case in cases]


def whole(case):
    """Returns a case that `make test-all` alone runs."""
    values = case if type(case) is tuple else (case,)
    return pytest.param(*values, marks=pytest.mark.whole)
