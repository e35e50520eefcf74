"""The two ways in which neonet3d fails on purpose.

An error is a sentence: what was found, where, and what to do. The command line prints it alone,
without a traceback; anything else that is raised is a defect of ours and shows its traceback.
"""


class InputError(ValueError):
    """The request or the data cannot be used as they are (exit status 2). Nothing was written."""


class RunError(RuntimeError):
    """A run that began in order could not be finished (exit status 1). What is done is kept."""
