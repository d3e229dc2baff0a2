"""The JSON shapes of the admin API, as pydantic models: what it takes and what it gives. No I/O, no ORM."""
