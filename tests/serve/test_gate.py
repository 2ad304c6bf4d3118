"""What a body may be: JSON in UTF-8, each field once, no more values than there is use for."""

import json

import pytest

from evr1.serve.errors import Refusal
from evr1.serve.gate import parse

HELLO = b'{"messages": [{"role": "user", "content": "Hi"}]}'


@pytest.mark.parametrize(
    "body",
    [
        HELLO.replace(b"Hi", b"\\ud800"),
        HELLO.replace(b"Hi", b"\\uDC00"),
        HELLO.replace(b"Hi", b"\xed\xa0\x80"),  # half a pair as bytes
        HELLO.replace(b"Hi", b"\\ud800").decode().encode("utf-16"),
        HELLO.replace(b"messages", b"\\ud800"),
        HELLO.replace(b"Hi", b"\xff"),
        b"[" * 4000,
        b"1" * 5000,
        b"",
    ],
)
def test_a_body_is_json_in_utf_8(body):
    with pytest.raises(Refusal, match="no JSON in UTF-8") as caught:
        parse(bytearray(body), 5000)
    assert caught.value.code == "invalid_json"


def test_what_is_no_bad_body():
    assert parse(bytearray(b"\xef\xbb\xbf" + HELLO), 100) == json.loads(HELLO)
    paired = HELLO.replace(b"Hi", b"\\ud83d\\ude00")
    assert parse(bytearray(paired), 100)["messages"][0]["content"] == "\U0001f600"


def test_a_field_stands_there_once():
    for body in (b'{"n": 1, "n": 2}', b'{"a": [{"n": 1, "m": 1, "n": 2}]}'):
        with pytest.raises(Refusal, match="n: stands there twice") as caught:
            parse(bytearray(body), 100)
        assert caught.value.param == "n"


@pytest.mark.parametrize("body", [b"[" + b"0," * 100 + b"0]", b"[{}]" * 51, b"[" * 101])
def test_values_are_counted_before_they_are_made(body):
    with pytest.raises(Refusal, match="over 100 commas and brackets"):
        parse(bytearray(body), 100)


def test_a_refusal_is_short_whatever_a_client_makes_up():
    said = Refusal(400, f"{'x' * 10**5}: not\nknown", param="y" * 10**5).body()["error"]
    assert len(said["message"]) < 1100
    assert len(said["param"]) < 250
