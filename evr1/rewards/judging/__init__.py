"""An LLM judge beside the scorers."""
