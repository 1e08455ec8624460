"""What MaxText says of our files, both ways: as :mod:`tests.launchers.test_other_launchers`."""

import pytest

from tests.launchers import test_other_launchers as others

pytestmark = pytest.mark.launchers


@pytest.fixture(scope="module")
def cases() -> tuple[str, list[others.Case]]:
    """Random plans with MaxText's verdicts on them."""
    return "maxtext", others.answered("maxtext")


test_legal_plans_are_accepted = others.test_legal_plans_are_accepted
test_accepted_illegal_plans_are_explained = others.test_accepted_illegal_plans_are_explained
test_sizes_are_those_of_the_plan = others.test_sizes_are_those_of_the_plan
