"""The commands, a module each; `tools/NAME.py` are the same ones in a checkout."""
