"""Which tests `make quick` takes for a change, and that it ends in time and says so."""

from __future__ import annotations

import pytest

from tests.quick import ROOT, Budget, likely_tests

pytest_plugins = ["pytester"]


def test_a_changed_test_comes_first_and_tests_of_the_name_next() -> None:
    tests = likely_tests(["core/durably/core/approval.py", "tests/core/test_flow.py"])
    assert tests[0] == "tests/core/test_flow.py"
    assert tests.index("tests/core/test_approval.py") < tests.index("tests/core/test_approval_desk.py")
    assert tests.index("tests/core/test_approval_desk.py") < tests.index("tests/core/test_tools.py")
    assert tests[-1] == "tests/testing/test_conformance_memory.py"


def test_tests_that_import_a_module_come_before_others_of_its_folder() -> None:
    tests = likely_tests(["backends/durably/backends/replay/clock.py"])
    assert tests.index("tests/testing/test_conformance_lmdb.py") < tests.index("tests/backends/test_memory.py")


def test_servers_are_started_only_for_what_names_the_module() -> None:
    assert not any(each.startswith("tests/temporal/") for each in likely_tests(["core/durably/core/budget.py"]))
    assert "tests/temporal/test_registry.py" in likely_tests(["backends/durably/backends/temporal/registry.py"])


def test_a_page_has_its_blocks_and_its_links() -> None:
    page = "tests/test_docs.py::test_every_{}[tools.md]"
    assert likely_tests(["docs/tools.md"]) == [page.format("block_runs"), page.format("link_leads_somewhere")]
    assert likely_tests(["LICENSE"]) == []


def test_what_it_names_is_there() -> None:
    named = likely_tests(["core/durably/core/approval.py", "docs/tools.md"])
    assert [each for each in named if not (ROOT / each.partition("::")[0]).exists()] == []


def test_it_stops_when_the_time_is_up_and_says_how_many_are_left(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile("def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass")
    budget = Budget(-1.0)
    result = pytester.inline_run("-p", "no:cacheprovider", "-p", "no:asyncio", path, plugins=[budget])
    assert budget.left == 2
    assert [len(each) for each in result.listoutcomes()] == [1, 0, 0]
    assert Budget(60.0).left == 0
