"""Notes: write them down, find them again, tidy up."""

from __future__ import annotations

from tasks import Stage, scenario


@scenario(1, "train", "simple_note")
def note_write(s: Stage) -> None:
    title, content = s.pick(
        ("Gate code", "The new code is 4471."),
        ("Book for Imani", "She wants the second volume."),
        ("Car", "Winter tyres are in the cellar."),
    )
    s.instruction = s.pick(
        f"Make a note called '{title}' for me, it should say: {content}",
        f"Please write this down in my notes before I forget: {content} Title it '{title}'.",
        f"New note, title '{title}', text '{content}'",
    )
    s.expect_added("simple_note.Note", title=title, content=content)
    s.solve(
        "apis.simple_note.create_note(title=<<title>>, content=<<content>>, access_token=simple_note_token)",
        title=title, content=content,
    )  # fmt: skip
    s.mistake(
        "apis.simple_note.create_note(title=<<title>>, content=<<title>>, access_token=simple_note_token)", title=title
    )
