"""The phone: alarms, contacts and text messages."""

from __future__ import annotations

from stage import Stage, scenario


@scenario(1, "train", "phone")
def alarm_set(s: Stage) -> None:
    time, label = s.pick(("06:45", "Early train"), ("14:20", "Call the bank"), ("21:05", "Water the plants"))
    s.expect_added("phone.Alarm", user_id=s.user.id, time=time, label=label, enabled=True)
    s.instruction = s.pick(
        f"Set an alarm for {time} on my phone and label it '{label}'.",
        f"I need an alarm at {time}, called '{label}'.",
        f"Phone alarm, {time}, label '{label}', please.",
    )
    s.solve("apis.phone.create_alarm(time=<<time>>, label=<<label>>, access_token=phone_token)", time=time, label=label)
    s.mistake("apis.phone.create_alarm(time=<<time>>, access_token=phone_token)", time=time)


@scenario(2, "train", "phone")
def alarm_shift(s: Stage) -> None:
    minutes = s.pick(15, 20, 10)
    for hour, label, enabled in ((6, "Run", True), (7, "Work", True), (8, "School", True), (9, "Holiday", False),
                                 (12, "Lunch", True), (22, "Bed", True), (23, "Old", False)):  # fmt: skip
        alarm = s.add(
            "phone.Alarm", user_id=s.user.id, time=f"{hour:02d}:30", label=label, enabled=enabled, snooze_minutes=10,
            vibration=True, repeat_days=None,
        )  # fmt: skip
        if enabled:
            s.expect_updated("phone.Alarm", int(alarm.id), time=f"{hour:02d}:{30 - minutes:02d}")
    s.instruction = s.pick(
        f"Make all my alarms that are switched on go off {minutes} minutes earlier.",
        f"I'm always late. Shift each enabled alarm on my phone {minutes} minutes forward, to an earlier time.",
        f"Every active alarm: {minutes} minutes earlier. Don't touch the ones that are off.",
    )
    body = """
        alarms, page = [], 0
        while found := apis.phone.show_alarms(page_index=page, access_token=phone_token):
            alarms, page = alarms + found, page + 1
        for alarm in alarms:
            if %s:
                hour, minute = map(int, alarm['time'].split(':'))
                earlier = hour * 60 + minute - <<minutes>>
                time = f'{earlier // 60:02d}:{earlier %% 60:02d}'
                apis.phone.update_alarm(alarm_id=alarm['alarm_id'], time=time, access_token=phone_token)
        """
    s.solve(body % "alarm['enabled']", minutes=minutes)
    s.mistake(body % "True", minutes=minutes)


@scenario(1, "train", "phone")
def text_send(s: Stage) -> None:
    friend, _ = s.friends[s.variant]
    message = s.pick("The meeting moved to four.", "I have your umbrella.", "We are out of milk.")
    s.expect_added("phone.GlobalTextMessage", sender_id=s.user.id, receiver_id=friend.id, message=message)
    s.side_effects = {"phone.UserTextMessage": "added"}
    s.instruction = s.pick(
        f"Text {friend.name}: {message}",
        f"Send {friend.name} a text message that says exactly this: {message}",
        f"Could you text '{message}' to {friend.name}?",
    )
    body = """
        contact = apis.phone.search_contacts(query=<<name>>, access_token=phone_token)[0]
        apis.phone.send_text_message(phone_number=%s, message=<<message>>, access_token=phone_token)
        """
    s.solve(body % "contact['phone_number']", name=friend.name, message=message)
    s.mistake(body % "<<mine>>", name=friend.name, message=message, mine=s.friends[5][0].phone)
    s.mistake(
        """
        for text in apis.phone.search_text_messages(access_token=phone_token):
            apis.phone.delete_text_message(text_message_id=text['text_message_id'], access_token=phone_token)
        """
        + body % "contact['phone_number']",
        name=friend.name, message=message,
    )  # fmt: skip


@scenario(1, "test", "phone")
def contact_birthday(s: Stage) -> None:
    friend, _ = s.friends[2 + s.variant]
    s.answer = friend.birthday
    s.instruction = s.pick(
        f"When is {friend.name}'s birthday? Give it as YYYY-MM-DD.",
        f"What date do I have for {friend.first} {friend.last}'s birthday in my phone contacts (YYYY-MM-DD)?",
        f"I need {friend.name}'s date of birth from my contacts, as YYYY-MM-DD.",
    )
    s.solve(
        "contact = apis.phone.search_contacts(query=<<name>>, access_token=phone_token)[0]", "contact['birthday']",
        name=friend.name,
    )  # fmt: skip
    s.mistake("contacts = apis.phone.search_contacts(access_token=phone_token)", "contacts[-1]['birthday']")


@scenario(2, "test", "phone")
def text_group(s: Stage) -> None:
    relation = s.pick("friend", "coworker", "friend")
    message = s.pick("I have a new number soon.", "Running late, start without me.", "Barbecue on Sunday at noon!")
    for friend, relations in s.friends:
        if relation in relations:
            s.expect_added("phone.GlobalTextMessage", sender_id=s.user.id, receiver_id=friend.id, message=message)
    s.side_effects = {"phone.UserTextMessage": "added"}
    s.instruction = s.pick(
        f"Text all my contacts who are marked as friends: {message}",
        f"Let every coworker in my contacts know by text: {message}",
        f"Everybody in my phone with the relationship 'friend' should get this text: {message}",
    )
    s.solve(
        """
        people, page = [], 0
        while found := apis.phone.search_contacts(relationship=<<r>>, page_index=page, access_token=phone_token):
            people, page = people + found, page + 1
        for person in people:
            number = person['phone_number']
            apis.phone.send_text_message(phone_number=number, message=<<message>>, access_token=phone_token)
        """,
        r=relation, message=message,
    )  # fmt: skip
    s.mistake(
        """
        people = apis.phone.search_contacts(page_limit=20, access_token=phone_token)
        for person in people:
            number = person['phone_number']
            apis.phone.send_text_message(phone_number=number, message=<<message>>, access_token=phone_token)
        """,
        message=message,
    )


@scenario(1, "train", "phone")
def contact_add(s: Stage) -> None:
    first, last, number = s.pick(
        ("Agnes", "Holm", "5550102938"), ("Paolo", "Ricci", "5550475610"), ("Wanda", "Novak", "5550998877")
    )
    email = f"{first}@{last}.net".lower()
    s.expect_added(
        "phone.Contact", user_id=s.user.id, first_name=first, last_name=last, phone_number=number, email=email
    )
    s.instruction = s.pick(
        f"Save a new contact on my phone: {first} {last}, {number}, {email}.",
        f"I met {first} {last} today, the number is {number} and the e-mail {email}. Put that into my contacts.",
        f"New phone contact please. First name {first}, last name {last}, number {number}, address {email}.",
    )
    body = """
        apis.phone.add_contact(
            first_name=%s, last_name=%s, phone_number=<<number>>, email=<<email>>, access_token=phone_token
        )
        """
    s.solve(body % ("<<first>>", "<<last>>"), first=first, last=last, number=number, email=email)
    s.mistake(body % ("<<last>>", "<<first>>"), first=first, last=last, number=number, email=email)
