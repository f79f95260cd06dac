"""Errors that a user can mend: one line that says what was found, what was expected, what to do next.

CprdError                     exit code 2
├── SettingsError             a YAML key or value, or a command-line option
├── CorpusError               annotations, images or captions of the user
├── StoreError                a file of ours that is missing, damaged or of another schema
├── ModelError                a model folder, or what a model returned
├── MissingDependencyError    a package of an extra that is not installed
└── MachineError              disk, memory or device cannot do what was asked
"""


class CprdError(Exception):
    """Root of all errors that the user, not the programmer, resolves.

    Args:
        found: What is wrong, with the file, key or value that shows it.
        expected: What would have been right; empty when `found` says it already.
        do: The next thing to do, as an instruction.
    """

    exit_code = 2

    def __init__(self, found: str, *, expected: str = "", do: str = "") -> None:
        self.found = found
        self.expected = expected
        self.do = do
        parts = [found, f"expected {expected}" if expected else "", do]
        super().__init__("; ".join(part for part in parts if part))


class SettingsError(CprdError):
    """A setting that is unknown, out of range, or contradicts another."""


class CorpusError(CprdError):
    """The user's data cannot be read as it is."""


class StoreError(CprdError):
    """A file between two stages is missing, damaged, foreign or of another schema."""


class ModelError(CprdError):
    """A model cannot be loaded, or gave something that must not be stored."""


class MissingDependencyError(CprdError):
    """An optional package is needed; the message names the extra that brings it."""


class MachineError(CprdError):
    """The machine lacks the disk, memory or device that the settings ask for."""


def first_line(error: Exception) -> str:
    """What a library's error says on its first line, or its kind when it says nothing; for the line of one of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
