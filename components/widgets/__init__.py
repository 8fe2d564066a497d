"""Building blocks of the page, each with its HTML, CSS and JavaScript."""
