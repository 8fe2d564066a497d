"""What commands print for people: tables and lines for a terminal."""
