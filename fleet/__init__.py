"""The relational truth: devices and their credentials, twins, commands, firmware updates, people, and what happened."""
