"""The bar of `preprocess`."""

import subprocess
import sys

_SHOWN = """
import sys
from evr1.data.media import preprocess
assert "tensorflow_datasets" not in sys.modules  # else nothing is shown here
with preprocess.progress_bar():
    assert "tensorflow_datasets" in sys.modules
"""


def test_tfds_is_loaded_before_the_bar_has_a_thread():
    """As it loads, it replaces the import statement of all threads by one that refuses."""
    subprocess.run([sys.executable, "-c", _SHOWN], check=True)
