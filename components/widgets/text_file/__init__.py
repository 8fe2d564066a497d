"""The text file picker."""
