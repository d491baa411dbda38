"""Files and mail: read, sort, add up, send."""

from __future__ import annotations

from stage import Stage, scenario

_LIST = "        paths = apis.file_system.show_directory(directory_path=<<folder>>%s, access_token=file_system_token)\n"


@scenario(1, "train", "file_system")
def file_answer(s: Stage) -> None:
    path, label, value = s.pick(
        ("documents/lease.txt", "Monthly rent", "870"), ("documents/car.txt", "Plate", "KX-4471"),
        ("documents/insurance.txt", "Policy number", "P-99120"),
    )  # fmt: skip
    s.file(path, f"For the folder.\n{label}: {value}\nSigned in 2023.")
    s.answer = value
    s.instruction = s.pick(
        f"What is my monthly rent? It is in the file ~/{path}, on the line 'Monthly rent'. Just the number.",
        f"Look into ~/{path} and tell me the plate of my car.",
        f"I need my policy number, it is written in ~/{path}.",
    )
    read = "text = apis.file_system.show_file(file_path=<<path>>, access_token=file_system_token)['content']\n"
    s.solve(
        read + "value = [line for line in text.splitlines() if line.startswith(<<label>>)][0].split(': ')[1]", "value",
        path=f"~/{path}", label=label,
    )  # fmt: skip
    s.mistake(read + "value = text.splitlines()[0]", "value", path=f"~/{path}")


@scenario(1, "train", "file_system")
def file_write(s: Stage) -> None:
    path, content = s.pick(
        ("documents/todo.txt", "Call the bank"), ("documents/motto.txt", "Slowly but surely"),
        ("documents/wifi.txt", "birchwood-2024"),
    )  # fmt: skip
    s.expect_added("file_system.File", user_id=s.user.id, path=f"{s.user.home}{path}", content=content)
    s.instruction = s.pick(
        f"Create the file ~/{path} with this text: {content}",
        f"Write '{content}' into a new file ~/{path}.",
        f"I want a file ~/{path} whose content is '{content}'.",
    )
    body = "apis.file_system.create_file(file_path=<<path>>, content=<<content>>, access_token=file_system_token)"
    s.solve(body, path=f"~/{path}", content=content)
    s.mistake(body, path=f"~/downloads/{path.rpartition('/')[2]}", content=content)


@scenario(2, "train", "file_system")
def file_sort(s: Stage) -> None:
    year, target = s.pick(("2022", "archive"), ("2021", "old"), ("2023", "done"))
    s.add("file_system.Directory", user_id=s.user.id, path=f"{s.user.home}{target}/")
    for name, of_year in (("invoice", year), ("ticket", year), ("scan", year), ("photo", "2024"), ("letter", "2020")):
        key = s.file(f"downloads/{name}_{of_year}.txt", f"{name} of {of_year}")
        if of_year == year:
            moved = f"{s.user.home}{target}/{name}_{of_year}.txt"
            s.expect_added("file_system.File", user_id=s.user.id, path=moved, content=f"{name} of {of_year}")
            s.expect_removed("file_system.File", key)
    s.instruction = s.pick(
        f"Move everything in ~/downloads that has {year} in its name to ~/{target}.",
        f"Please tidy ~/downloads: files with {year} in their names belong into ~/{target}. Move them.",
        f"All {year} files (it is in the file name) should go from ~/downloads to ~/{target}.",
    )
    body = (
        _LIST % ""
        + """
        for path in paths:
            name = path.rpartition('/')[2]
            if %s:
                apis.file_system.move_file(
                    source_file_path=path, destination_file_path=<<target>> + name, access_token=file_system_token
                )
        """
    )
    values = {"folder": "~/downloads", "target": f"~/{target}/", "year": year}
    s.solve(body % "<<year>> in name", **values)
    s.mistake(body % "name and <<year>> <= name.partition('_')[2]", **values)


@scenario(2, "dev", "file_system")
def file_sum(s: Stage) -> None:
    folder, total = s.pick("receipts", "bills", "expenses"), 0
    for month, names in (("march", ("bakery", "books")), ("april", ("shoes", "train", "bakery"))):
        for index, name in enumerate(names):
            amount = 7 + 5 * index + len(name) + s.variant
            s.file(f"{folder}/{month}/{name}.txt", f"{name}\nTotal: {amount} dollars\nThank you!")
            total += amount
    s.file(f"{folder}/total.txt", "Total: 3 dollars")
    total += 3
    s.answer = total
    s.instruction = s.pick(
        f"Add up the totals of all receipts in ~/{folder} and the folders inside it. How many dollars is that?",
        f"Each file under ~/{folder} (subfolders too) has a line 'Total: N dollars'. What is the sum of all N?",
        f"Sum of the totals in all files below ~/{folder}, please. A number is enough.",
    )
    body = (
        _LIST % "%s"
        + r"""
        total = 0
        for path in paths:
            if path.endswith('.txt'):
                text = apis.file_system.show_file(file_path=path, access_token=file_system_token)['content']
                total += int(re.search(r'Total: (\d+)', text).group(1))
        """
    )
    s.solve(body % "", "total", folder=f"~/{folder}")
    s.mistake(body % ", recursive=False", "total", folder=f"~/{folder}")


@scenario(1, "train", "gmail")
def mail_send(s: Stage) -> None:
    friend, _ = s.friends[s.variant]
    subject, text = s.pick(
        ("Keys", "I left the keys with the neighbour."), ("Friday", "Let us meet at six."), ("Form", "It is signed.")
    )
    s.expect_added("gmail.Email", sender_id=s.user.id, recipient_ids=[friend.id], subject=subject, body=text)
    s.side_effects = {"gmail.GlobalEmailThread": "added", "gmail.UserEmailThread": "added"}
    s.instruction = s.pick(
        f"E-mail {friend.email}, subject '{subject}': {text}",
        f"Write a mail to {friend.email} with the subject '{subject}' that says: {text}",
        f"Please send '{text}' to {friend.email} by e-mail. Subject: '{subject}'.",
    )
    body = (
        "apis.gmail.send_email(email_addresses=[<<to>>], subject=<<subject>>, body=<<text>>, access_token=gmail_token)"
    )
    s.solve(body, to=friend.email, subject=subject, text=text)
    s.mistake(body, to=friend.email, subject=text, text=subject)


@scenario(3, "test", "file_system", "phone", "gmail")
def mail_file(s: Stage) -> None:
    friend, _ = s.friends[3 + s.variant]
    path, subject = s.pick(
        ("documents/minutes.txt", "Minutes"), ("documents/cv.txt", "My CV"), ("documents/plan.txt", "The plan")
    )
    content = s.pick("We agreed on everything.", "Ten years of bridges.", "First dig, then plant.")
    s.file(path, content)
    s.expect_added("gmail.Email", sender_id=s.user.id, recipient_ids=[friend.id], subject=subject, body=content)
    s.side_effects = {"gmail.GlobalEmailThread": "added", "gmail.UserEmailThread": "added"}
    s.instruction = s.pick(
        f"Send {friend.name} an e-mail whose text is the content of my file ~/{path}, subject '{subject}'. The address "
        "is in my phone contacts.",
        f"Mail the text of ~/{path} to {friend.name} (not as an attachment, as the body), with the subject "
        f"'{subject}'. Look the address up in my contacts.",
        f"{friend.name} wants to read ~/{path}. Put what it says into an e-mail, subject '{subject}'; you find the "
        "address on my phone.",
    )
    body = """
        text = apis.file_system.show_file(file_path=<<path>>, access_token=file_system_token)['content']
        contact = apis.phone.search_contacts(query=<<name>>, access_token=phone_token)[0]
        apis.gmail.send_email(
            email_addresses=[contact['email']], subject=<<subject>>, body=%s, access_token=gmail_token
        )
        """
    s.solve(body % "text", path=f"~/{path}", name=friend.name, subject=subject)
    s.mistake(body % "<<path>>", path=f"~/{path}", name=friend.name, subject=subject)


@scenario(3, "train", "simple_note", "file_system")
def notes_to_files(s: Stage) -> None:
    tag, folder = s.pick(("recipe", "recipes"), ("poem", "poems"), ("travel", "trips"))
    s.add("file_system.Directory", user_id=s.user.id, path=f"{s.user.home}{folder}/")
    for index in range(s.pick(6, 7, 6)):
        title, content = f"{tag} {index + 1}", f"Text of number {index + 1}."
        s.note(title, content, tag)
        path = f"{s.user.home}{folder}/{title}.txt"
        s.expect_added("file_system.File", user_id=s.user.id, path=path, content=content)
    s.note(f"About {tag}s", "General remarks.", "other")
    s.instruction = s.pick(
        f"Back up my notes tagged '{tag}': each becomes a file in ~/{folder}, named TITLE.txt, with the note's text.",
        f"Save every note with the tag '{tag}' as ~/{folder}/TITLE.txt (TITLE being the note's title, the content its "
        "text).",
        f"For all notes tagged '{tag}', write a file into ~/{folder}. File name: the title plus .txt. Content: that of "
        "the note.",
    )
    body = """
        notes, page = [], 0
        while found := apis.simple_note.search_notes(%s, page_index=page, access_token=simple_note_token):
            notes, page = notes + found, page + 1
        for entry in notes:
            note = apis.simple_note.show_note(note_id=entry['note_id'], access_token=simple_note_token)
            path = <<folder>> + note['title'] + '.txt'
            apis.file_system.create_file(file_path=path, content=note['content'], access_token=file_system_token)
        """
    s.solve(body % "tags=[<<tag>>]", tag=tag, folder=f"~/{folder}/")
    s.mistake(body % "query=<<tag>>", tag=tag, folder=f"~/{folder}/")
