"""Notes: write them down, find them again, tidy up."""

from __future__ import annotations

from stage import Stage, scenario


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
    s.expect_added("simple_note.Note", user_id=s.user.id, title=title, content=content)
    values = {"title": title, "content": content}
    s.solve(
        "apis.simple_note.create_note(title=<<title>>, content=<<content>>, access_token=simple_note_token)", **values
    )
    s.mistake(
        "apis.simple_note.create_note(title=<<content>>, content=<<title>>, access_token=simple_note_token)", **values
    )
    s.mistake(
        "apis.simple_note.create_note(title=<<title>>, content=<<content>>, access_token=simple_note_token)\n"
        "apis.simple_note.update_account_name(first_name='Max', access_token=simple_note_token)",
        **values,
    )


@scenario(1, "train", "simple_note")
def note_count(s: Stage) -> None:
    tag, titles = s.pick(
        ("recipe", "Lentil soup,Plum cake,Rye bread,Green curry,Onion tart,Fish pie,Pickles"),
        ("garden", "Tomatoes,Compost,Roses,Pond pump,Hedge,Bulbs,Seeds to order,Bird feeder"),
        ("gift-idea", "Kite,Teapot,Puzzle,Scarf,Map of Oslo,Chess set"),
    )
    names = titles.split(",")
    for name in names:
        s.note(name, f"About {name.lower()}.", tag)
    s.note("Taxes", "Due in July.", "papers")
    s.answer = len(names)
    s.instruction = s.pick(
        f"How many of my notes are tagged '{tag}'?",
        f"I keep tagging notes with '{tag}'. Count them for me, will you?",
        f"Number of notes with the tag '{tag}'?",
    )
    s.solve(
        """
        notes, page = [], 0
        while found := apis.simple_note.search_notes(tags=[<<tag>>], page_index=page, access_token=simple_note_token):
            notes, page = notes + found, page + 1
        """,
        "len(notes)", tag=tag,
    )  # fmt: skip
    s.mistake(
        "notes = apis.simple_note.search_notes(tags=[<<tag>>], access_token=simple_note_token)", "len(notes)", tag=tag
    )


@scenario(1, "train", "simple_note")
def note_append(s: Stage) -> None:
    title, before, line = s.pick(
        ("Shopping", "- bread\n- apples", "- oat milk"),
        ("Packing list", "- tent\n- stove\n- map", "- head torch"),
        ("Questions for the doctor", "- the knee\n- sleep", "- blood test results"),
    )
    note = s.note(title, before, "lists")
    s.note("Old list", "- nothing", "lists")
    s.instruction = s.pick(
        f"Put '{line}' on my '{title}' note, as a new line at the end.",
        f"There is a note '{title}'. Add one more line at its end: {line}",
        f"Could you append the line '{line}' to the note called '{title}'? Leave the rest of it alone.",
    )
    after = f"{before}\n{line}"
    s.expect_updated("simple_note.Note", note, content=after)
    s.solve(
        r"""
        note_id = [n for n in apis.simple_note.search_notes(query=<<title>>, access_token=simple_note_token)
                   if n['title'] == <<title>>][0]['note_id']
        note = apis.simple_note.show_note(note_id=note_id, access_token=simple_note_token)
        text = note['content'] + '\n' + <<line>>
        apis.simple_note.update_note(note_id=note_id, content=text, access_token=simple_note_token)
        """,
        title=title, line=line,
    )  # fmt: skip
    s.mistake(
        """
        note_id = [n for n in apis.simple_note.search_notes(query=<<title>>, access_token=simple_note_token)
                   if n['title'] == <<title>>][0]['note_id']
        apis.simple_note.update_note(note_id=note_id, content=<<line>>, access_token=simple_note_token)
        """,
        title=title, line=line,
    )  # fmt: skip


@scenario(2, "dev", "simple_note")
def note_tidy(s: Stage) -> None:
    tag = s.pick("draft", "temp", "scratch")
    for number in range(s.pick(7, 6, 9)):
        pinned = number % 3 == 1
        note = s.note(f"{tag.title()} {number + 1}", "To be thrown away some day.", tag, pinned=pinned)
        if not pinned:
            s.expect_removed("simple_note.Note", note)
    s.note("Keep me", f"Not a {tag}, just mentions {tag}.", "papers")
    s.instruction = s.pick(
        f"Delete all notes tagged '{tag}', but keep the ones that I have pinned.",
        f"My notes are a mess. Everything tagged '{tag}' can go, except what is pinned.",
        f"Please clear out the '{tag}' notes. Pinned ones stay!",
    )
    body = """
        notes, page = [], 0
        while found := apis.simple_note.search_notes(tags=[<<tag>>], page_index=page, access_token=simple_note_token):
            notes, page = notes + found, page + 1
        for note in notes:
            if %s:
                apis.simple_note.delete_note(note_id=note['note_id'], access_token=simple_note_token)
        """
    s.solve(body % "not note['pinned']", tag=tag)
    s.mistake(body % "True", tag=tag)


@scenario(1, "test", "simple_note")
def note_pin(s: Stage) -> None:
    title, other = s.pick(
        ("Passport numbers", "Passport photos"),
        ("Landlord", "Landlord, old flat"),
        ("Meter readings", "Meter cupboard"),
    )
    note = s.note(title, "See inside.", "papers")
    s.note(other, "Not this one.", "papers")
    s.expect_updated("simple_note.Note", note, pinned=True)
    s.instruction = s.pick(
        f"Pin my note '{title}', please.",
        f"I keep looking for the note called '{title}': can you pin it?",
        f"The note '{title}' should be pinned to the top.",
    )
    body = """
        notes = apis.simple_note.search_notes(query=<<title>>, page_limit=20, access_token=simple_note_token)
        for note in notes:
            if %s:
                apis.simple_note.update_note(note_id=note['note_id'], pinned=True, access_token=simple_note_token)
        """
    s.solve(body % "note['title'] == <<title>>", title=title)
    s.mistake(body % "True", title=title)
