"""SVG and HTML documents as lists of elements and attributes."""
