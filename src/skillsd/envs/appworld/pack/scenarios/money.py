"""Money: payments, requests, shared expenses."""

from __future__ import annotations

import world
from stage import Stage, scenario

_MOVED = {"venmo.User": ["last_logged_in", "venmo_balance"], "venmo.Notification": "added"}
_ALL_PAYMENTS = """
        payments, page = [], 0
        while found := apis.venmo.show_transactions(%s, page_index=page, page_limit=20, access_token=venmo_token):
            payments, page = payments + found, page + 1
"""


@scenario(1, "train", "venmo")
def pay_friend(s: Stage) -> None:
    friend, _ = s.friends[3 + s.variant]
    amount, what = s.pick((12.5, "pizza"), (34.0, "concert ticket"), (8.75, "taxi home"))
    s.expect_added("venmo.Transaction", sender_id=s.user.id, receiver_id=friend.id, amount=amount, description=what)
    s.side_effects = _MOVED
    s.instruction = s.pick(
        f"Send {friend.name} ${amount:.2f} on Venmo, with the description '{what}'.",
        f"I owe {friend.name} ${amount:.2f}. Pay it through Venmo and write '{what}' as the description.",
        f"Venmo {friend.name} ${amount:.2f} for '{what}' (that is the description too).",
    )
    body = """
        friend = apis.venmo.search_friends(query=<<name>>, access_token=venmo_token)[0]
        apis.venmo.create_transaction(
            receiver_email=friend['email'], amount=<<amount>>, description=<<what>>, access_token=venmo_token
        )
        """
    s.solve(body, name=friend.name, amount=amount, what=what)
    s.mistake(body, name=s.friends[0][0].name, amount=amount, what=what)


@scenario(1, "train", "venmo")
def request_money(s: Stage) -> None:
    friend, _ = s.friends[6 + s.variant]
    amount, what = s.pick((19.0, "museum"), (45.6, "share of the rent deposit"), (7.2, "sandwiches"))
    s.expect_added("venmo.PaymentRequest", sender_id=s.user.id, receiver_id=friend.id, amount=amount, description=what)
    s.side_effects = {"venmo.Notification": "added"}
    s.instruction = s.pick(
        f"Request ${amount:.2f} from {friend.name} on Venmo, description '{what}'.",
        f"{friend.name} still owes me ${amount:.2f}. Ask for it on Venmo and put '{what}' into the description.",
        f"Please send {friend.name} a Venmo payment request over ${amount:.2f} for '{what}' (use that as description).",
    )
    find = "friend = apis.venmo.search_friends(query=<<name>>, access_token=venmo_token)[0]\n"
    s.solve(
        find + "apis.venmo.create_payment_request(user_email=friend['email'], amount=<<amount>>, description=<<what>>, "
        "access_token=venmo_token)",
        name=friend.name, amount=amount, what=what,
    )  # fmt: skip
    s.mistake(
        find + "apis.venmo.create_transaction(receiver_email=friend['email'], amount=<<amount>>, "
        "description=<<what>>, access_token=venmo_token)",
        name=friend.name, amount=amount, what=what,
    )  # fmt: skip


@scenario(2, "train", "venmo")
def money_spent(s: Stage) -> None:
    friend, _ = s.friends[s.variant]
    total = 0.0
    for index in range(s.pick(8, 7, 9)):
        amount = 5.0 + 3.25 * index
        world.paid(s.models, s.user, friend, amount, "lunch", f"2024-04-{3 + 3 * index:02d}T12:00:00")
        total += amount
    world.paid(s.models, friend, s.user, 11.0, "lunch", "2024-04-20T12:00:00")
    world.paid(s.models, s.user, friend, 21.0, "lunch", "2024-05-02T12:00:00")
    s.answer = total
    s.instruction = s.pick(
        f"How much did I pay {friend.name} on Venmo in April 2024, in all? Just the number.",
        f"What is the sum, as a bare number, of the Venmo payments that I sent to {friend.name} in April of this year?",
        f"Add up everything I sent {friend.name} over Venmo last month, and tell me the number alone.",
    )
    find = "        friend = apis.venmo.search_friends(query=<<name>>, access_token=venmo_token)[0]"
    where = "user_email=friend['email'], min_created_at='2024-04-01', max_created_at='2024-04-30'"
    total_of = "        total = sum(payment['amount'] for payment in payments)"
    s.solve(find + _ALL_PAYMENTS % f"{where}, direction='sent'" + total_of, "total", name=friend.name)
    s.mistake(find + _ALL_PAYMENTS % where + total_of, "total", name=friend.name)
    s.mistake(
        f"{find}\n        payments = apis.venmo.show_transactions({where}, direction='sent', "
        "access_token=venmo_token)\n" + total_of, "total", name=friend.name,
    )  # fmt: skip


@scenario(3, "train", "phone", "venmo")
def approve_requests(s: Stage) -> None:
    relation = s.pick("coworker", "friend", "coworker")
    for index, (friend, relations) in enumerate(s.friends[:7]):
        amount = 4.0 + 2 * index
        request = s.add(
            "venmo.PaymentRequest", sender_id=friend.id, receiver_id=s.user.id, amount=amount,
            description=f"shared {world.TREATS[index]}", private=False, approved_at=None, denied_at=None,
        )  # fmt: skip
        key = int(request.id)
        if relation in relations:
            s.expect_updated("venmo.PaymentRequest", key, approved_at="2024-05-17")
            s.expect_added("venmo.Transaction", sender_id=s.user.id, receiver_id=friend.id, amount=amount)
    s.side_effects = _MOVED
    s.instruction = s.pick(
        "Approve the Venmo payment requests that coworkers of mine have sent me (my phone contacts say who is one). "
        "Leave the others pending.",
        "Several people want money from me on Venmo. Pay those who are friends according to my phone contacts by "
        "approving their requests, and do nothing about the rest.",
        "Go through my pending Venmo requests and approve each that comes from somebody my phone lists as a coworker.",
    )
    body = """
        people, page = [], 0
        while found := apis.phone.search_contacts(%s page_index=page, access_token=phone_token):
            people, page = people + found, page + 1
        emails = {person['email'] for person in people}
        requests, page = [], 0
        while found := apis.venmo.show_received_payment_requests(
            status='pending', page_index=page, access_token=venmo_token
        ):
            requests, page = requests + found, page + 1
        for request in requests:
            if request['sender']['email'] in emails:
                apis.venmo.approve_payment_request(
                    payment_request_id=request['payment_request_id'], access_token=venmo_token
                )
        """
    s.solve(body % "relationship=<<relation>>,", relation=relation)
    s.mistake(body % "")


@scenario(2, "dev", "venmo")
def like_payments(s: Stage) -> None:
    friend, _ = s.friends[1 + s.variant]
    for index in range(6):
        payment = world.paid(s.models, friend, s.user, 6 + index, "cinema", f"2024-05-{2 + 2 * index:02d}T18:00:00")
        s.expect_added("venmo.TransactionLike", transaction_id=int(payment.id), user_id=s.user.id)
        s.expect_updated("venmo.Transaction", int(payment.id), like_count=1)
    world.paid(s.models, friend, s.user, 3, "cinema", "2024-04-28T18:00:00")
    world.paid(s.models, s.user, friend, 4, "cinema", "2024-05-09T18:00:00")
    s.side_effects = {"venmo.Notification": "added"}
    s.instruction = s.pick(
        f"Like all Venmo payments that I got from {friend.name} this month.",
        f"{friend.name} paid me back a few times in May. Give each of those Venmo transactions a like.",
        f"Please like every payment {friend.name} sent me on Venmo since the first of May.",
    )
    find = "        friend = apis.venmo.search_friends(query=<<name>>, access_token=venmo_token)[0]"
    where = "user_email=friend['email'], min_created_at='2024-05-01'"
    like = (
        "        for payment in payments:\n"
        "            apis.venmo.like_transaction(transaction_id=payment['transaction_id'], access_token=venmo_token)"
    )
    s.solve(find + _ALL_PAYMENTS % f"{where}, direction='received'" + like, name=friend.name)
    s.mistake(find + _ALL_PAYMENTS % where + like, name=friend.name)


@scenario(3, "train", "phone", "venmo")
def pay_what_they_say(s: Stage) -> None:
    friend, _ = s.friends[2 + s.variant]
    old, amount, what = s.pick((14.0, 23.5, "the tickets"), (9.0, 16.25, "petrol"), (31.0, 28.4, "dinner"))
    world.text(s.models, friend, s.user, f"You owe me ${old:.2f} for {what}.", "2024-05-15T19:05:00")
    world.text(
        s.models, friend, s.user, f"Sorry, I got it wrong: it is ${amount:.2f} for {what}.", "2024-05-16T08:40:00"
    )
    s.expect_added("venmo.Transaction", sender_id=s.user.id, receiver_id=friend.id, amount=amount, description=what)
    s.side_effects = _MOVED
    s.instruction = s.pick(
        f"{friend.name} texted me what I owe. Look up the final amount and pay it on Venmo, description '{what}'.",
        f"I owe {friend.name} money for {what}, the text messages tell how much (there was a correction). Send it over "
        f"Venmo with '{what}' as the description.",
        f"Check {friend.first} {friend.last}'s texts for my share, mind that it was corrected, and Venmo it. "
        f"Description: '{what}'.",
    )
    body = r"""
        contact = apis.phone.search_contacts(query=<<name>>, access_token=phone_token)[0]
        texts = apis.phone.show_text_message_window(
            phone_number=contact['phone_number'], page_limit=20, access_token=phone_token
        )
        texts.sort(key=lambda t: t['sent_at'])
        text = [t['message'] for t in texts if '$' in t['message']][%s]
        amount = float(re.search(r'\$([0-9.]+[0-9])', text).group(1))
        apis.venmo.create_transaction(
            receiver_email=contact['email'], amount=amount, description=<<what>>, access_token=venmo_token
        )
        """
    s.solve(body % "-1", name=friend.name, what=what)
    s.mistake(body % "0", name=friend.name, what=what)


@scenario(3, "test", "venmo", "simple_note")
def budget_note(s: Stage) -> None:
    what, title = s.pick(
        ("groceries", "Groceries in April"), ("coffee", "Coffee budget"), ("parking", "Parking, April")
    )
    total = 0.0
    for index, (friend, _) in enumerate(s.friends[:7]):
        world.paid(s.models, s.user, friend, 6.5 + index, what, f"2024-04-{4 + 3 * index:02d}T12:00:00")
        total += 6.5 + index
        world.paid(s.models, s.user, friend, 3.0, "something else", f"2024-04-{5 + 3 * index:02d}T12:00:00")
        world.paid(s.models, friend, s.user, 2.0, what, f"2024-04-{6 + 3 * index:02d}T12:00:00")
    s.expect_added("simple_note.Note", user_id=s.user.id, title=title, content=f"{total:.2f}")
    s.instruction = s.pick(
        f"Add up what I paid on Venmo in April 2024 with the description '{what}' and write the sum, with two decimals "
        f"and nothing else, into a new note '{title}'.",
        f"New note '{title}' please: its text is the total of my sent Venmo payments described as '{what}' in April "
        "2024, like 12.50.",
        f"I want a note called '{title}' that holds one number with two decimals, what I sent over Venmo for '{what}' "
        "in April 2024 altogether.",
    )
    where = "min_created_at='2024-04-01', max_created_at='2024-04-30'"
    write = """
        total = sum(payment['amount'] for payment in payments if payment['description'] == <<what>>)
        apis.simple_note.create_note(title=<<title>>, content=f'{total:.2f}', access_token=simple_note_token)
"""
    s.solve(_ALL_PAYMENTS % f"{where}, direction='sent'" + write, what=what, title=title)
    s.mistake(_ALL_PAYMENTS % where + write, what=what, title=title)


@scenario(2, "train", "phone", "splitwise")
def split_bill(s: Stage) -> None:
    (one, _), (two, _) = s.friends[s.variant], s.friends[s.variant + 4]
    amount, what = s.pick((60.0, "Dinner at Solo"), (42.0, "Boat rental"), (90.0, "Concert"))
    s.expect_added(
        "splitwise.Expense", payer_id=s.user.id, amount=amount, description=what,
        debtor_ids=[s.user.id, one.id, two.id],
    )  # fmt: skip
    for person in (s.user, one, two):
        s.expect_added("splitwise.ExpenseShare", debtor_id=person.id, share_amount=amount / 3)
    s.side_effects = {"splitwise.Notification": "added"}
    s.instruction = s.pick(
        f"I paid ${amount:.2f} for '{what}'. Record it on Splitwise as an expense to be shared equally by me, "
        f"{one.name} and {two.name}. Their addresses are in my phone contacts.",
        f"Splitwise: '{what}', ${amount:.2f}, paid by me, split equally between {one.name}, {two.name} and me (find "
        "their e-mail addresses in my contacts).",
        f"Please split '{what}' on Splitwise. I paid all of the ${amount:.2f}; {one.name}, {two.name} and I share it "
        "equally. My phone knows their e-mail addresses.",
    )
    body = """
        emails = %s
        for name in <<names>>:
            emails.append(apis.phone.search_contacts(query=name, access_token=phone_token)[0]['email'])
        apis.splitwise.record_expense(
            description=<<what>>, paid_amount=<<amount>>, payer_email=<<me>>, debtor_emails=emails,
            access_token=splitwise_token,
        )
        """
    values = {"names": [one.name, two.name], "me": s.user.email, "what": what, "amount": amount}
    s.solve(body % "[<<me>>]", **values)
    s.mistake(body % "[]", **values)
    unequal = f"debtor_emails=emails, debt_amounts=[{amount - 10}, 5.0, 5.0],"
    s.mistake((body % "[<<me>>]").replace("debtor_emails=emails,", unequal), **values)


@scenario(2, "train", "splitwise")
def most_owed(s: Stage) -> None:
    amounts = s.pick((12.0, 48.0, 30.0), (55.0, 20.0, 5.0), (9.0, 14.0, 33.0))
    for (friend, _), amount in zip(s.friends[:3], amounts, strict=True):
        _owes(s, payer=s.user, debtor=friend, amount=amount)
    last, _ = s.friends[4]
    _owes(s, payer=last, debtor=s.user, amount=80.0)
    s.answer = s.friends[amounts.index(max(amounts))][0].name
    s.instruction = s.pick(
        "Who owes me the most on Splitwise? I want the full name.",
        "On Splitwise, which person has the largest debt to me (first and last name)?",
        "Tell me the name of the one who owes me most money according to Splitwise.",
    )
    body = """
        balance = apis.splitwise.show_people_balance(access_token=splitwise_token)
        people = %s
        name = max(people, key=lambda entry: entry['amount'])['name']
        """
    s.solve(body % "[entry for entry in balance['breakdown'] if entry['direction'] == 'they_owe_you']", "name")
    s.mistake(body % "balance['breakdown']", "name")


def _owes(s: Stage, payer: world.Person, debtor: world.Person, amount: float) -> None:
    expense = s.add(
        "splitwise.Expense", user_id=payer.id, payer_id=payer.id, debtor_ids=[debtor.id],
        participant_ids=[payer.id, debtor.id], description="Weekend", amount=amount,
    )  # fmt: skip
    s.add("splitwise.ExpenseShare", expense_id=expense.id, debtor_id=debtor.id, share_amount=amount)


@scenario(2, "dev", "splitwise")
def settle_with(s: Stage) -> None:
    friend, _ = s.friends[2 + s.variant]
    first, second = s.pick((18.0, 7.5), (40.0, 11.0), (25.0, 4.25))
    _owes(s, payer=friend, debtor=s.user, amount=first)
    _owes(s, payer=friend, debtor=s.user, amount=second)
    _owes(s, payer=s.user, debtor=s.friends[0][0], amount=13.0)
    s.expect_added("splitwise.Payment", payer_id=s.user.id, receiver_id=friend.id, amount=first + second)
    s.side_effects = {"splitwise.Notification": "added"}
    s.instruction = s.pick(
        f"I have paid {friend.name} all that I owed in cash. Record that payment on Splitwise.",
        f"Settled everything with {friend.name} today by hand! Put the payment of my whole Splitwise debt on record.",
        f"Record on Splitwise that I paid back {friend.name} in full.",
    )
    body = """
        balance = apis.splitwise.show_people_balance(access_token=splitwise_token)
        entry = [e for e in balance['breakdown'] if e['name'] == <<name>>][0]
        apis.splitwise.record_payment(
            payer_email=%s, receiver_email=%s, amount=entry['amount'], access_token=splitwise_token
        )
        """
    s.solve(body % ("<<me>>", "entry['email']"), name=friend.name, me=s.user.email)
    s.mistake(body % ("entry['email']", "<<me>>"), name=friend.name, me=s.user.email)
