"""The admin API without HTTP: its routes, their models, and what each does."""
