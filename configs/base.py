"""The name that config files import; every field stands in `evr1/config/base.py`."""

from evr1.config.base import get_config

__all__ = ["get_config"]
