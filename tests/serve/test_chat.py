"""What is written of a request where that is asked for."""

from evr1.serve import schema
from evr1.serve.chat import _shown


def test_a_request_is_one_line_in_a_log():
    image = {"type": "image_url", "image_url": {"url": "DATA:image/png;base64," + "A" * 10**5}}
    text = {"type": "text", "text": "a\nb\r\x1b[31m\x85c\u2028d"}
    asked = {"model": "m", "messages": [{"role": "user", "content": [image, text]}]}
    line = _shown(schema.read(asked))
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 500
