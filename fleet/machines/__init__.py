"""State machines as tables: (state, event) -> (state, effects). Pure: no I/O, no clock, no database."""
