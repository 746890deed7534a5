"""What people see of results: tables, one dialogue, a web page."""
