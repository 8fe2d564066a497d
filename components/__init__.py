"""The page: sessions, services, widgets and panels."""
