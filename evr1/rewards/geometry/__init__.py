"""Spans of time, boxes and masks: how they are written, and how alike they are."""
