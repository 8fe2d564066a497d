"""X-ray: layer scores, comparisons, suggestions."""
