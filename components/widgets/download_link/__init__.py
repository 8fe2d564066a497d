"""The download link."""
