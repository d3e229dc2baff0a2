"""What stops Mooring from starting: the operator's to mend, told in one line.

MooringError          exit 2
├── SettingsError     a setting is unknown, malformed or contradicts another
└── StartError        the world's: a busy port, an unwritable directory, a newer database
"""


class MooringError(Exception):
    """Mooring cannot do this; the message is one line that says what to do."""


class SettingsError(MooringError):
    """A setting is unknown, malformed or contradicts another."""


class StartError(MooringError):
    """Something outside keeps the server from starting."""
