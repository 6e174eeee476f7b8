"""What the admin API takes and gives: JSON with names in camelCase, unknown fields refused."""
