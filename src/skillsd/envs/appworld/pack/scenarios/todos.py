"""To-dos: add, tick off, put off, count."""

from __future__ import annotations

from stage import Stage, scenario

_FIND = """
        projects = apis.todoist.show_projects(query=<<project>>, page_limit=20, access_token=todoist_token)
        project_id = [p for p in projects if p['name'] == <<project>>][0]['project_id']
"""
_TASKS = (
    _FIND
    + """
        shown = apis.todoist.show_tasks(project_id=project_id, access_token=todoist_token)
        tasks = shown['no_section_tasks']
"""
)


@scenario(1, "train", "todoist")
def todo_add(s: Stage) -> None:
    project, title = s.pick(
        ("Errands", "Pick up the parcel"), ("House", "Order firewood"), ("Work", "Send the invoice to Caspar")
    )
    number = s.project(project)
    s.todo(number, "Something else")
    s.expect_added("todoist.Task", project_id=number, title=title, is_completed=False, priority="high")
    s.instruction = s.pick(
        f"Add '{title}' to my '{project}' project in Todoist. It is urgent, so high priority.",
        f"Todoist, project '{project}': new task '{title}', priority high.",
        f"I must not forget this: {title}. Put it into my '{project}' to-dos exactly so, with high priority.",
    )
    body = _FIND + (
        "        apis.todoist.create_task(project_id=project_id, title=<<title>>%s, access_token=todoist_token)"
    )
    s.solve(body % ", priority='high'", project=project, title=title)
    s.mistake(body % "", project=project, title=title)


@scenario(1, "train", "todoist")
def todo_done(s: Stage) -> None:
    project, title, other = s.pick(
        ("Errands", "Buy stamps", "Buy envelopes"), ("House", "Fix the tap", "Fix the door"),
        ("Club", "Book the hall", "Book the caterer"),
    )  # fmt: skip
    number = s.project(project)
    s.todo(number, other)
    s.expect_updated("todoist.Task", s.todo(number, title), is_completed=True)
    s.instruction = s.pick(
        f"Tick off '{title}' in my '{project}' project, I have done it.",
        f"'{title}' is done! Please mark it as completed, it is in '{project}' on Todoist.",
        f"Mark the task '{title}' ('{project}' project) as completed.",
    )
    body = (
        _TASKS
        + """
        task_id = [t for t in tasks if %s][0]['task_id']
        apis.todoist.update_task(task_id=task_id, is_completed=True, access_token=todoist_token)
        """
    )
    s.solve(body % "t['title'] == <<title>>", project=project, title=title)
    s.mistake(body % "t['title'] != <<title>>", project=project, title=title)


@scenario(2, "train", "todoist")
def todo_postpone(s: Stage) -> None:
    project, day = s.pick(("Thesis", "2024-05-27"), ("Allotment", "2024-05-20"), ("Tax return", "2024-06-03"))
    number = s.project(project)
    late = s.pick(
        ("Read chapter 2", "Fix figure 4"), ("Dig bed three", "Paint the shed", "Oil tools"), ("Scan receipts",)
    )
    for index, title in enumerate(late):
        task = s.todo(number, title, due_date=f"2024-05-{4 + 3 * index:02d}T00:00:00")
        s.expect_updated("todoist.Task", task, due_date=day)
    s.todo(number, "Done long ago", due_date="2024-05-02T00:00:00", is_completed=True)
    s.todo(number, "Still time", due_date="2024-05-30T00:00:00")
    s.todo(number, "Some day")
    s.instruction = s.pick(
        f"I am behind with '{project}'. Move every unfinished task there that was due before today to {day}.",
        f"In Todoist, project '{project}', some tasks are overdue and not done. Give all of those the due date {day}.",
        f"Whatever is overdue and still open in my '{project}' project: new due date {day}, please.",
    )
    body = (
        _TASKS
        + """
        for task in tasks:
            if task['due_date'] and task['due_date'][:10] < '2024-05-17'%s:
                apis.todoist.update_task(task_id=task['task_id'], due_date=<<day>>, access_token=todoist_token)
        """
    )
    s.solve(body % " and not task['is_completed']", project=project, day=day)
    s.mistake(body % "", project=project, day=day)


@scenario(1, "dev", "todoist")
def todo_count(s: Stage) -> None:
    project = s.pick("Moving house", "Wedding", "Website")
    number, open_ = s.project(project), s.pick(4, 3, 5)
    for index in range(open_):
        s.todo(number, f"Important step {index + 1}", priority="high")
    for index in range(2):
        s.todo(number, f"Finished step {index + 1}", priority="high", is_completed=True)
        s.todo(number, f"Small thing {index + 1}", priority="low")
    s.answer = open_
    s.instruction = s.pick(
        f"How many high-priority tasks are still open in my '{project}' project?",
        f"Todoist: in '{project}', count the tasks with high priority that are not completed yet.",
        f"'{project}' stresses me. How many urgent (high priority) tasks are left there?",
    )
    body = _TASKS + "        count = sum(t['priority'] == 'high'%s for t in tasks)"
    s.solve(body % " and not t['is_completed']", "count", project=project)
    s.mistake(body % "", "count", project=project)


@scenario(3, "train", "simple_note", "todoist")
def todo_from_note(s: Stage) -> None:
    title, project = s.pick(("Camping trip", "Camping"), ("Party on Saturday", "Party"), ("New flat", "Flat"))
    things = s.pick(
        ("Book the site", "Check the tent", "Borrow a stove", "Buy maps"),
        ("Invite neighbours", "Order cake", "Find speakers"),
        ("Measure windows", "Call the electrician", "Buy lamps", "Choose a carpet", "Change address"),
    )
    ticked = {1, 3}
    lines = [f"[{'x' if i in ticked else ' '}] {thing}" for i, thing in enumerate(things)]
    s.note(title, "\n".join(lines), "lists")
    s.expect_added("todoist.Project", user_id=s.user.id, name=project)
    for index, thing in enumerate(things):
        if index not in ticked:
            place = s.new("todoist.Project", name=project)
            s.expect_added("todoist.Task", title=thing, user_id=s.user.id, project_id=place)
    s.side_effects = {"todoist.ProjectCollaboratorLink": "added"}
    s.instruction = s.pick(
        f"My note '{title}' has a checklist. Make a Todoist project '{project}' with a task for each line that is not "
        "ticked yet, named like the line.",
        f"Turn the open points (no x in the brackets) of my note '{title}' into tasks of a new project '{project}' on "
        "Todoist.",
        f"Create the project '{project}' in Todoist. Its tasks are the unticked items of the note '{title}'.",
    )
    body = """
        notes = apis.simple_note.search_notes(query=<<title>>, page_limit=20, access_token=simple_note_token)
        note_id = [n for n in notes if n['title'] == <<title>>][0]['note_id']
        note = apis.simple_note.show_note(note_id=note_id, access_token=simple_note_token)
        project_id = apis.todoist.create_project(name=<<project>>, access_token=todoist_token)['project_id']
        for line in note['content'].splitlines():
            if %s:
                apis.todoist.create_task(project_id=project_id, title=line[4:], access_token=todoist_token)
        """
    s.solve(body % "line.startswith('[ ]')", title=title, project=project)
    s.mistake(body % "line.startswith('[')", title=title, project=project)
    inbox = (
        "[p for p in apis.todoist.show_projects(access_token=todoist_token) if p['name'] == 'Inbox'][0]['project_id']"
    )
    s.mistake(
        (body % "line.startswith('[ ]')").replace("project_id=project_id", f"project_id={inbox}"),
        title=title, project=project,
    )  # fmt: skip
