"""Mathematical answers: rewritten, parsed, evaluated and compared."""
