"""The image picker."""
