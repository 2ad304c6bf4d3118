"""Parameter trees by path: nested dicts, and flat ones whose keys are paths."""

from typing import Any


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {"a": {"b": x}} as {"a/b": x}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    join = f"{prefix}/" if prefix else ""
    return {k: v for key, sub in tree.items() for k, v in flatten(sub, join + key).items()}


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """Returns {"a/b": x} as {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[leaf] = value
    return tree
