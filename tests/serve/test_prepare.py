"""From a request to what is drawn."""

import contextlib
import json
import pathlib
import threading

import pytest
from clips import write_image
from repo import DEMO_MODEL

from evr1.data.media.decode import DecodePool
from evr1.data.processor import Processor
from evr1.formats import chat_template
from evr1.serve import schema
from evr1.serve.errors import Refusal
from evr1.serve.fetch import Fetcher
from evr1.serve.media import MediaFolder
from evr1.serve.prepare import Preparer
from evr1.serve.settings import ServeSettings


def test_what_nobody_waits_for_is_given_up_between_two_media(tmp_path):
    write_image(tmp_path / "a.png")
    part = {"type": "image_url", "image_url": {"url": "file:a.png"}}
    asked = schema.read({"model": "m", "messages": [{"role": "user", "content": [part] * 2}]})
    folder = MediaFolder(str(tmp_path), Fetcher(False, (), 1000), 1000)
    processor = Processor.from_hf(str(DEMO_MODEL))
    unwanted = threading.Event()
    with DecodePool(1, 60.0) as pool, contextlib.ExitStack() as stack:
        prepare = Preparer(
            ServeSettings(str(DEMO_MODEL), "m"), str(DEMO_MODEL), processor, pool, folder,
            lambda _: False,
        )  # fmt: skip
        assert prepare(asked, stack, unwanted).prompt_tokens > 0
        unwanted.set()
        with pytest.raises(Refusal, match="nobody waits"):
            prepare(asked, stack, unwanted)


def test_variables_of_a_request_need_no_file_and_no_type():
    """The model's directory may be gone by now; what a template cannot do with a value is told."""
    source = "{{ 'effort: ' + effort }}"
    for value, text in (("low", "effort: low"), (1, ""), ([], ""), (None, "")):
        given = json.dumps({"effort": value})
        chosen = chat_template.variables_of(source, {}, pathlib.Path("gone"), None, given)
        assert chosen == {"effort": value}
        if text:
            assert chat_template.render(source, [], {}, chosen) == text
            continue
        with pytest.raises(ValueError, match="the chat template fails"):
            chat_template.render(source, [], {}, chosen)
