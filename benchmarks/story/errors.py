"""What keeps the story from being told."""


class StoryError(RuntimeError):
    """The message says what happened and what to do."""
