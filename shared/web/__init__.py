"""The dashboard: one page that works with the admin API, and its files."""
