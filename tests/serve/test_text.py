"""Text out of tokens: half characters wait, stop texts are found across tokens, and once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from evr1.sampler.live import Drawn
from evr1.serve.memo import Memo
from evr1.serve.text import Answer


class Bytes:
    """A processor of bytes; 0 ends an answer."""

    end_ids = (0,)

    class tokenizer:
        @staticmethod
        def decode(ids, skip_special_tokens):
            return bytes(ids).decode("utf-8", "replace")

    @staticmethod
    def decode(ids):
        return bytes(i for i in ids if i).decode("utf-8", "replace")


def drawn(data: bytes, is_done=False, logprob=-1.0) -> Drawn:
    tokens = np.frombuffer(data, np.uint8).astype(np.int32)
    return Drawn(tokens, np.full(len(tokens), logprob, np.float32), None, is_done)


def stream(parts, **fields) -> tuple[list[str], Answer]:
    answer, said = Answer(Bytes(), **fields), []
    for i, part in enumerate(parts):
        answer.add(drawn(part, i == len(parts) - 1))
        said.append(answer.take()[0])
    return said, answer


def test_half_a_character_waits_for_its_other_half():
    euro = "€".encode()
    assert stream([b"a" + euro[:1], euro[1:2], euro[2:] + b"b\0"])[0] == ["a", "", "€b"]
    assert stream([b"a" + euro[:2]])[0] == ["a\ufffd"]  # there is no other half


@pytest.mark.parametrize(
    ("parts", "said", "finish", "tokens"),
    [
        ([b"one st", b"op two\0"], ["one ", ""], "stop", 8),
        ([b"one st", b"ep\0"], ["one ", "step"], "stop", 9),
        ([b"one sto", b"ry stop"], ["one ", "story "], "stop", 14),
        ([b"stop"], [""], "stop", 4),
        ([b"one sto"], ["one sto"], "length", 7),
    ],
)
def test_a_stop_text_is_never_said_nor_what_stands_behind_it(parts, said, finish, tokens):
    got, answer = stream(parts, stops=("stop", "never"))
    assert (got, answer.finish, len(answer.ids)) == (said, finish, tokens)


def test_entries_go_with_their_tokens():
    _, answer = stream([b"ab", b"stop!"], stops=("stop",), has_logprobs=True)
    assert [entry["token"] for entry in answer.entries] == list("abstop")
    assert answer.entries[0] == {
        "token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []
    }  # fmt: skip


def test_logits_that_are_not_finite_end_an_answer():
    answer = Answer(Bytes())
    answer.add(drawn(b"a", True, np.nan))
    assert (answer.is_broken, answer.ids) == (True, [])


def test_a_value_is_made_once_for_all_who_ask():
    made, memo = [], Memo(3, lambda _: 1)
    gate = threading.Event()

    def make():
        made.append(1)
        assert gate.wait(10)
        return "value"

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(memo.get, "a", make) for _ in range(4)]
        time.sleep(0.05)
        gate.set()
        assert [each.result() for each in asked] == ["value"] * 4
    assert made == [1]
    for key in "bcd":  # three are kept
        memo.get(key, lambda: "other")
    assert memo.size == 3
    assert memo.get("a", lambda: "again") == "again"


def test_an_error_is_not_kept():
    memo = Memo(3, lambda _: 1)
    with pytest.raises(ZeroDivisionError):
        memo.get("a", lambda: 1 // 0)
    assert memo.get("a", lambda: 2) == 2
