"""Numbers in sentences."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts, in the plural where it is not one."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def were(number: int) -> str:
    """A number of things and what was done to them: `1 was`, `2 were`."""
    return f"{number} {'was' if number == 1 else 'were'}"
