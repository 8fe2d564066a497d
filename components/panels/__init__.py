"""The page's panels, one folder each."""
