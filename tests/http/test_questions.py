"""What is asked behind the ? of a path, and by a filter: what means nothing is refused by name, not passed over."""

from typing import Any

import pytest

from asyncflow import Malformed
from asyncflow.definition import Definition
from runner import Runner
from runner.questions import check_filter
from tests.http import shop
from tests.http.asking import Asker

BASKET = "/workflows/Basket"
ONE = f"{BASKET}/b-1"

ROUTES = [
    ("GET", "/workflows"),
    ("GET", BASKET),
    ("POST", BASKET),
    ("GET", f"{BASKET}/docs"),
    ("GET", f"{BASKET}/definition"),
    ("GET", ONE),
    ("DELETE", ONE),
    ("GET", f"{ONE}/history"),
    ("GET", f"{ONE}/queries/count"),
    ("POST", f"{ONE}/events/clear"),
    ("POST", f"{ONE}:pause"),
]


@pytest.mark.parametrize("method, path", ROUTES)
def test_an_unknown_parameter_is_refused_by_name(client: Asker, method: str, path: str) -> None:
    client.start("Basket", "b-1")
    before = client.get(ONE).get_json()
    problem = client.problem(method, f"{path}?pagesize=3", status=400)
    assert problem["class"] == "Malformed"
    assert "'pagesize'" in problem["detail"]
    assert client.get(ONE).get_json() == before


def test_a_thread_of_a_verb_stands_in_its_body(client: Asker) -> None:
    client.start("Basket", "b-1")
    assert (
        client.problem("POST", f"{ONE}:retry?thread=main", status=400)["detail"] == "expected dry_run behind the ?, found 'thread'"
    )


@pytest.mark.parametrize(
    "path, filter_, said",
    [
        (BASKET, "labels.ownr = ann", "Basket has no label 'ownr'; there are: owner"),
        ("/workflows/Oven", "labels.owner = ann", "Oven has no label 'owner'; there are: none"),
        ("/workflows/-", "labels.ownr = ann", "has no label 'ownr'; there are: owner"),
        (BASKET, "state.paid > 3", "state.paid is written as text in JSON (as a Decimal is), so > 3 fits none"),
        (BASKET, "state.paid = 3.5", "so = 3.5 fits none"),
        (BASKET, "state.items.0.name = 3", "state.items.0.name is written as text"),
    ],
)
def test_a_filter_that_can_fit_nothing_is_refused(client: Asker, path: str, filter_: str, said: str) -> None:
    response = client.client.get(path, query_string={"filter": filter_})
    assert response.status_code == 400
    assert said in response.get_json(force=True)["detail"]


@pytest.mark.parametrize(
    "filter_",
    [
        'state.paid = "0"',
        "state.paid != 3",
        "state.items.0.count > 3",
        "state.callers.0 = null",
        "state.nowhere = 3",
        "labels.owner = ann AND status = Running",
    ],
)
def test_a_filter_that_may_fit_something_is_asked(client: Asker, filter_: str) -> None:
    assert client.client.get(BASKET, query_string={"filter": filter_}).status_code == 200


def test_lists_of_a_runner_are_asked_alike(runner: Runner) -> None:
    with pytest.raises(Malformed, match="no label 'ownr'"):
        list(runner.list(shop.Basket, filter="labels.ownr = ann"))


def test_without_code_nothing_is_known_of_labels() -> None:
    check_filter("labels.anything = 1 AND state.x > 3", [])


def test_what_one_of_several_workflows_may_have_is_asked() -> None:
    several: list[Definition[Any]] = [Definition.of(shop.Basket), Definition.of(shop.Oven)]
    check_filter("labels.owner = ann", several)
