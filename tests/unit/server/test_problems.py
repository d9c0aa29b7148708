from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from handlers.errors import (
    AppError,
    Fault,
    Invalid,
    InvalidToken,
    KeyInFlight,
    OutOfStock,
    Unauthenticated,
    Unavailable,
)
from handlers.http import FAULT_CODES
from server.problems import HTTP_CODES, OTHER_HTTP_CODE, problem_of, status_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "errors.md"


def tree(kind: type[AppError] = AppError) -> Iterator[type[AppError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def document_of(error: Exception) -> dict[str, object]:
    response = problem_of(error).response("r-1")
    assert response.content_type == "application/problem+json"
    assert isinstance(response.body, bytes)
    document = orjson.loads(response.body)
    assert isinstance(document, dict)
    return document


def documented(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of docs/errors.md, without the marks of code."""
    section = DOCUMENT.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `.*\|$", section, flags=re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def test_every_code_of_the_tree_is_documented_with_its_status_and_whether_to_retry() -> None:
    expected = {kind.code: [str(status_of(kind)), "yes" if kind.retryable else "no"] for kind in tree()}
    # A path that leads nowhere and a request that HTTP cannot read have the code of the domain's own.
    expected |= {code: [str(status), "no"] for status, (code, _) in HTTP_CODES.items()}
    expected |= {OTHER_HTTP_CODE: ["other", "no"]}

    assert {code: [status, retryable] for code, status, retryable, _ in documented("Codes")} == expected


def test_every_fault_code_is_documented() -> None:
    assert {code for code, _ in documented("Faults")} == FAULT_CODES


def test_the_codes_of_the_tree_are_distinct() -> None:
    codes = [kind.code for kind in tree()]

    assert len(codes) == len(set(codes))


def test_a_problem_carries_what_a_client_and_a_support_desk_need() -> None:
    error = OutOfStock("Only 1 is left.", faults=[Fault("/items/0", "out_of_stock", "1 left")])

    assert document_of(error) == {
        "type": "/problems/out_of_stock",
        "title": "There are not enough pieces left.",
        "status": 409,
        "detail": "Only 1 is left.",
        "code": "out_of_stock",
        "retryable": False,
        "errors": [{"pointer": "/items/0", "code": "out_of_stock", "detail": "1 left"}],
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("secret"), KeyError("secret"), web.HTTPNotFound(text="secret", reason="secret")]
)
def test_the_text_of_a_foreign_exception_never_leaves(error: Exception) -> None:
    assert b"secret" not in orjson.dumps(document_of(error))


def test_an_unexpected_exception_is_an_internal_error() -> None:
    assert (document_of(ZeroDivisionError())["status"], document_of(ZeroDivisionError())["code"]) == (500, "internal")


def test_a_sign_in_problem_names_the_scheme_and_whether_the_token_was_bad() -> None:
    assert problem_of(Unauthenticated()).headers["WWW-Authenticate"] == 'Bearer realm="orderwire"'
    assert problem_of(InvalidToken()).headers["WWW-Authenticate"] == 'Bearer realm="orderwire", error="invalid_token"'


def test_those_who_are_refused_for_now_are_told_when_to_come_back() -> None:
    assert {problem_of(Unavailable()).headers["Retry-After"] for _ in range(100)} == {"1", "2"}
    assert problem_of(KeyInFlight()).headers["Retry-After"] == "1"


def test_a_wrong_method_is_answered_with_those_that_are_right() -> None:
    problem = problem_of(web.HTTPMethodNotAllowed("PUT", ["GET", "HEAD"]))

    assert (problem.status, problem.code, problem.headers) == (405, "method_not_allowed", {"Allow": "GET,HEAD"})


@pytest.mark.parametrize("status", [402, 406, 418, 429, 431, 501, 504])
def test_a_status_that_nobody_thought_of_is_still_a_problem_document(status: int) -> None:
    kind = type("Odd", (web.HTTPException,), {"status_code": status})

    document = document_of(kind())

    assert (document["status"], document["code"]) == (status, OTHER_HTTP_CODE)


def test_a_broken_rule_is_422_and_keeps_its_faults_in_order() -> None:
    faults = [Fault(f"/items/{index}", "missing", "x") for index in (2, 0, 1)]

    document = document_of(Invalid(faults=faults))

    assert document["status"] == 422
    assert "detail" not in document
    assert document["errors"] == [{"pointer": fault.pointer, "code": "missing", "detail": "x"} for fault in faults]
