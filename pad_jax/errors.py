"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """A mistake of the user: its message is the single line that `main.py` prints before it exits with code 2.

    The message names the file, the line or the field, and the cure.
    """
