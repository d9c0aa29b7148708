"""Every kind of bad input gets the documented problem. None of it gets as far as the database."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator

import orjson
import pytest

from handlers.http import MAX_FAULTS
from handlers.schemas import encode_cursor
from tests.doubles import MemoryDatabase
from tests.rest import MAX_BODY_BYTES, Answered, Rest, serving_on

ID = "00000000-0000-4000-8000-00000000000a"
ITEM = b'{"product_id":"%s","quantity":1}' % ID.encode()


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    async with serving_on(MemoryDatabase()) as opened:
        yield opened


async def post(rest: Rest, body: bytes, path: str = "/api/v1/orders", **headers: str) -> Answered:
    account = await rest.an_account()
    sent = {"Content-Type": "application/json", **rest.bearer(account), **headers}
    async with rest.client.post(path, data=body, headers=sent) as response:
        return await Answered.of(response)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"items":[' + ITEM + b",]}",
        b"\xef\xbb\xbf{}",
        b'{"items":"\xff"}',
        b'{"items":"\\ud800"}',
        b"[" * 10_000,
        b'{"items":' + b"9" * 5000 + b"}",
        b"\x00",
        "{}".encode("utf-16"),
    ],
)
async def test_what_is_not_json_is_malformed(rest: Rest, body: bytes) -> None:
    answer = await post(rest, body)

    assert (answer.status, answer.code, answer.faults) == (400, "malformed", [("", "not_json")])


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (b"null", [("", "wrong_type")]),
        (b"[]", [("", "wrong_type")]),
        (b"{}", [("/items", "missing")]),
        (b'{"items":null}', [("/items", "wrong_type")]),
        (b'{"items":{}}', [("/items", "wrong_type")]),
        (b'{"items":[]}', [("/items", "wrong_length")]),
        (b'{"items":[%s]}' % b",".join([ITEM] * 51), [("/items", "wrong_length")]),
        (b'{"items":[1]}', [("/items/0", "wrong_type")]),
        (b'{"items":[%s],"notes":1,"a/b~c":2}' % ITEM, [("/notes", "unknown_field"), ("/a~1b~0c", "unknown_field")]),
        (
            b'{"items":[{"product_id":"x","quantity":0},{"quantity":"1"}]}',
            [
                ("/items/0/product_id", "wrong_type"),
                ("/items/0/quantity", "out_of_range"),
                ("/items/1/product_id", "missing"),
                ("/items/1/quantity", "wrong_type"),
            ],
        ),
        *(
            (b'{"items":[{"product_id":"%s","quantity":%s}]}' % (ID.encode(), value), [("/items/0/quantity", code)])
            for value, code in [
                (b"1001", "out_of_range"),
                (b"-1", "out_of_range"),
                (b"99999999999999999999999999", "out_of_range"),
                (b"1.0", "wrong_type"),
                (b"1e2", "wrong_type"),
                (b"true", "wrong_type"),
                (b"NaN", "wrong_type"),
                (b"-Infinity", "wrong_type"),
                (b"null", "wrong_type"),
            ]
        ),
        (b'{"items":[%s,%s]}' % (ITEM, ITEM), [("/items/1/product_id", "repeated_product")]),
        (b'{"items":[%s]}' % ITEM, [("/items/0", "not_found")]),
    ],
)
async def test_a_broken_rule_is_named_with_its_place(rest: Rest, body: bytes, faults: list[tuple[str, str]]) -> None:
    answer = await post(rest, body)

    assert (answer.status, answer.code, answer.faults) == (422, "invalid", faults)


@pytest.mark.parametrize(
    ("email", "password", "faults"),
    [
        ("a\0b", "x", [("/email", "nul_character")]),
        ("", "", [("/email", "wrong_length"), ("/password", "wrong_length")]),
        ("a" * 255, "p" * 257, [("/email", "wrong_length"), ("/password", "wrong_length")]),
        (1, None, [("/email", "wrong_type"), ("/password", "wrong_type")]),
    ],
)
async def test_sign_in_is_checked_alike(rest: Rest, email: object, password: object, faults: object) -> None:
    answer = await post(rest, orjson.dumps({"email": email, "password": password}), "/api/v1/auth/login")

    assert (answer.status, answer.code, answer.faults) == (422, "invalid", faults)
    assert str(password) == "None" or f'"{password}"'.encode() not in answer.raw


async def test_the_list_of_faults_and_each_of_them_are_bounded(rest: Rest) -> None:
    answer = await post(rest, orjson.dumps({f"{number}{'x' * 500}": 1 for number in range(100)}))

    assert len(answer.body["errors"]) == MAX_FAULTS
    assert len(answer.raw) < 30_000


async def test_faults_by_the_thousand_are_not_described(rest: Rest) -> None:
    answer = await post(rest, orjson.dumps(dict.fromkeys(map(str, range(1_500)), 0)), "/api/v1/auth/login")

    assert (answer.status, answer.code, answer.faults) == (422, "invalid", [("", "too_many_faults")])


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonx"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "unheard-of"},
    ],
)
async def test_another_media_type_is_unsupported(rest: Rest, headers: dict[str, str]) -> None:
    body = gzip.compress(b"{}") if headers.get("Content-Encoding") == "gzip" else b"{}"

    answer = await post(rest, body, **headers)

    assert (answer.status, answer.code) == (415, "unsupported_media_type")


async def test_json_may_name_its_charset(rest: Rest) -> None:
    answer = await post(rest, b"{}", **{"Content-Type": "application/json; charset=utf-8"})

    assert answer.status == 422


async def test_a_body_over_the_limit_is_too_large_however_it_is_sent(rest: Rest) -> None:
    body = b'"' + b"x" * MAX_BODY_BYTES + b'"'
    headers = {"Content-Type": "application/json", **rest.bearer(await rest.an_account())}

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 8192):
            yield body[start : start + 8192]

    for data in (body, pieces()):
        async with rest.client.post("/api/v1/orders", data=data, headers=headers) as response:
            answer = await Answered.of(response)
        assert (answer.status, answer.code) == (413, "too_large")


@pytest.mark.parametrize(
    ("query", "faults"),
    [
        ("limit=0", [("/limit", "out_of_range")]),
        ("limit=101", [("/limit", "out_of_range")]),
        ("limit=1_0", [("/limit", "wrong_type")]),
        ("limit=%2B5", [("/limit", "wrong_type")]),
        ("limit=٣", [("/limit", "wrong_type")]),
        ("limit=", [("/limit", "wrong_type")]),
        ("limit=1&limit=2", [("/limit", "repeated")]),
        ("limt=1&from=2", [("/limt", "unknown_field"), ("/from", "unknown_field")]),
        ("cursor=", [("/cursor", "bad_cursor")]),
        ("cursor=!!", [("/cursor", "bad_cursor")]),
        ("cursor=%FF%00", [("/cursor", "bad_cursor")]),
        ("cursor=" + "x" * 501, [("/cursor", "wrong_length")]),
        ("cursor=" + encode_cursor("\0"), [("/cursor", "bad_cursor")]),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/orders", "/api/v1/products"])
async def test_a_bad_query_is_malformed(rest: Rest, path: str, query: str, faults: list[tuple[str, str]]) -> None:
    answer = await rest.call("GET", f"{path}?{query}", await rest.an_account())

    assert (answer.status, answer.code, answer.faults) == (400, "malformed", faults)


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", "٣", str(2**63), "9" * 300])
async def test_a_cursor_of_orders_holds_a_number_that_an_order_can_have(rest: Rest, number: str) -> None:
    answer = await rest.call("GET", f"/api/v1/orders?cursor={encode_cursor(number)}", await rest.an_account())

    assert (answer.status, answer.faults) == (400, [("/cursor", "bad_cursor")])


@pytest.mark.parametrize(
    "name", ["1", "x", ID.upper(), f"{{{ID}}}", ID.replace("-", ""), "%00", "%FF", "..%2f..%2fetc", "٣"]
)
@pytest.mark.parametrize("path", ["/api/v1/orders/{}", "/api/v1/products/{}"])
async def test_what_is_no_id_names_nothing(rest: Rest, path: str, name: str) -> None:
    answer = await rest.call("GET", path.format(name), await rest.an_account())

    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("POST", "/api/v1/orders/x/refund", 404, "not_found"),
        ("DELETE", "/api/v1/orders", 405, "method_not_allowed"),
        ("GET", "/api/v1/auth/login", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_is_a_problem_too(rest: Rest, method: str, path: str, status: int, code: str) -> None:
    answer = await rest.call(method, path)

    assert (answer.status, answer.code) == (status, code)
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/v1/orders\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/orders/\xed\xa0\x80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /%ED%A0%80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
    ],
)
async def test_bytes_that_no_client_should_send_are_refused(rest: Rest, request_bytes: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rest.port)
    writer.write(request_bytes)
    status = (await reader.readline()).split()[1]
    writer.close()
    await writer.wait_closed()

    assert status.startswith(b"4")


async def test_a_key_that_is_no_text_is_malformed(rest: Rest) -> None:
    bearer = rest.bearer(await rest.an_account())["Authorization"].encode()
    body = b'{"items":[%b]}' % ITEM
    lines = [
        b"POST /api/v1/orders HTTP/1.1",
        b"Host: x",
        b"Connection: close",
        b"Authorization: " + bearer,
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"Idempotency-Key: \xff",
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", rest.port)
    writer.write(b"\r\n".join([*lines, b"", body]))
    status = (await reader.readline()).split()[1]
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()

    assert (status, b"bad_idempotency_key" in answer) == (b"400", True)


@pytest.mark.parametrize(
    "given", ["1", '"0"', '"01"', '"x"', 'W/"1"', '"1", "2"', '"', "", '"' + "9" * 11 + '"', '"\u0661"']
)
async def test_an_if_match_that_names_no_version_is_malformed(rest: Rest, given: str) -> None:
    answer = await post(rest, b"", f"/api/v1/orders/{ID}/pay", **{"If-Match": given})

    assert (answer.status, answer.code) == (400, "malformed")


async def test_the_largest_version_is_one(rest: Rest) -> None:
    answer = await post(rest, b"", f"/api/v1/orders/{ID}/pay", **{"If-Match": '"9999999999"'})

    assert answer.code == "not_found"
