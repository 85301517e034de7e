"""Pure. The exit codes of all commands; README.md lists them.

A separate module, so that a command can use them without loading anything else.
"""

OK = 0
USAGE = 2
NOTHING_MATCHED = 3
REFUSED = 4
PARTLY = 5
UNREACHABLE = 69
TIMED_OUT = 75
LOGIN_REFUSED = 77
MISCONFIGURED = 78
