"""The practice scenarios: one call each, in eight kinds, with values that are drawn.

In one place because two things are made of them: tasks (``scenarios/practice.py``, by the engine's Python), and the
episodes that the small model of ``skillsd base-model build --of appworld`` starts from. Knows nothing of the engine.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Variants of each kind: to train on, and held out.
TRAINED, HELD_OUT = 12, 6

_ADJECTIVES = (
    "amber,blue,broken,bright,clean,cold,copper,dark,dusty,early,empty,fresh,golden,green,grey,heavy,hidden,late,light,"
    "long,loud,narrow,new,old,open,orange,pale,plain,quiet,red,round,rusty,sharp,short,silver,slow,small,soft,spare,"
    "steep,striped,tall,tiny,warm,white,wide,wild,wooden,yellow,young"
).split(",")
_NOUNS = (
    "anchor,apple,basket,bell,bicycle,blanket,boat,bottle,bridge,broom,bucket,candle,carpet,chair,clock,coat,compass,"
    "cup,curtain,desk,door,drum,engine,feather,fence,flag,garden,gate,glove,hammer,hat,jacket,kettle,key,kite,ladder,"
    "lamp,letter,map,mirror,needle,paddle,pencil,piano,pillow,radio,ribbon,rope,saddle,shovel,spoon,stove,table,tent,"
    "ticket,tray,umbrella,violin,wagon,whistle"
).split(",")
_VERBS = "Borrow,Bring,Buy,Clean,Fetch,Find,Fix,Lend,Pack,Paint,Return,Sell,Sort,Store,Wash".split(",")


@dataclass(frozen=True)
class Argument:
    """An argument of the call: its ``name``, the one that a careless agent ``guesses``, and its source text."""

    name: str
    guess: str
    source: str


@dataclass(frozen=True)
class Kind:
    """What is asked, in two wordings, and the call that does it; {slots} stand for the drawn values."""

    name: str
    app: str
    api: str
    asks: tuple[str, str]
    arguments: tuple[Argument, ...]
    model: str
    row: Mapping[str, str]
    side_effects: tuple[str, ...] = ()

    def ask(self, values: Mapping[str, str], variant: int) -> str:
        """The instruction of a variant."""
        return self.asks[variant % 2].format_map(values)

    def call(self, values: Mapping[str, str], *, guessed: bool = False, token: str | None = "token") -> str:
        """The call as a line of Python, with the right names or the ``guessed`` ones, with or without a token."""
        words = [f"{a.guess if guessed else a.name}={a.source.format_map(values)}" for a in self.arguments]
        return f"apis.{self.app}.{self.api}({', '.join([*words, *([f'access_token={token}'] if token else [])])})"


KINDS = (
    Kind("note", "simple_note", "create_note",
         ("Make a note called '{title}' with the text '{text}'", "New note, title '{title}', text '{text}'"),
         (Argument("title", "title", "'{title}'"), Argument("content", "text", "'{text}'")),
         "simple_note.Note", {"title": "{title}", "content": "{text}"}),
    Kind("file", "file_system", "create_file",
         ("Create the file ~/{name}.txt with the text '{text}'", "Write '{text}' into a new file ~/{name}.txt"),
         (Argument("file_path", "path", "'~/{name}.txt'"), Argument("content", "content", "'{text}'")),
         "file_system.File", {"path": "{home}{name}.txt", "content": "{text}"}),
    Kind("alarm", "phone", "create_alarm",
         ("Set an alarm for {time} and label it '{title}'", "I need an alarm at {time}, label '{title}'"),
         (Argument("time", "alarm_time", "'{time}'"), Argument("label", "label", "'{title}'")),
         "phone.Alarm", {"time": "{time}", "label": "{title}"}),
    Kind("message", "phone", "send_text_message",
         ("Text {phone}: '{text}'", "Send the text message '{text}' to {phone}"),
         (Argument("phone_number", "phone_number", "'{phone}'"), Argument("message", "text", "'{text}'")),
         "phone.GlobalTextMessage", {"message": "{text}"}, ("phone.UserTextMessage",)),
    Kind("mail", "gmail", "send_email",
         ("E-mail {email}, subject '{title}', text '{text}'", "Mail '{text}' to {email} with the subject '{title}'"),
         (Argument("email_addresses", "to", "['{email}']"), Argument("subject", "subject", "'{title}'"),
          Argument("body", "body", "'{text}'")),
         "gmail.Email", {"subject": "{title}", "body": "{text}"}, ("gmail.GlobalEmailThread", "gmail.UserEmailThread")),
    Kind("project", "todoist", "create_project",
         ("Make a Todoist project '{title}'", "I want a new project in Todoist, '{title}'"),
         (Argument("name", "title", "'{title}'"),),
         "todoist.Project", {"name": "{title}"}, ("todoist.ProjectCollaboratorLink",)),
    Kind("playlist", "spotify", "create_playlist",
         ("Make an empty Spotify playlist '{title}'", "New Spotify playlist, no songs yet, call it '{title}'"),
         (Argument("title", "name", "'{title}'"),),
         "spotify.Playlist", {"title": "{title}"}),
    Kind("request", "venmo", "create_payment_request",
         ("Request ${amount} from {email} on Venmo, description '{title}'",
          "Ask {email} for ${amount} on Venmo, description '{title}'"),
         (Argument("user_email", "email", "'{email}'"), Argument("amount", "amount", "{amount}"),
          Argument("description", "description", "'{title}'")),
         "venmo.PaymentRequest", {"description": "{title}"}, ("venmo.Notification",)),
)  # fmt: skip


def generator(kind: Kind, variant: int) -> random.Random:
    """What the values of a task of the pack are drawn with."""
    return random.Random(f"practice {kind.name} {variant}")


def draw(rng: random.Random, friend: Any) -> dict[str, str]:
    """Values for every slot but ``home``; ``friend`` has an ``email`` and a ``phone``."""
    return {
        "title": f"{rng.choice(_ADJECTIVES).title()} {rng.choice(_NOUNS)}",
        "text": f"{rng.choice(_VERBS)} {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}",
        "name": rng.choice(_NOUNS),
        "time": f"{rng.randrange(24):02d}:{rng.randrange(0, 60, 5):02d}",
        "amount": f"{rng.randrange(1, 100)}.{rng.randrange(10, 100)}",
        "email": friend.email,
        "phone": friend.phone,
    }


def login(app: str, username: str) -> str:
    """Lines that log in to ``app`` with ``username`` (``email`` or ``phone_number``) and keep the token."""
    return (
        "me = apis.supervisor.show_profile()\n"
        "passwords = {p['account_name']: p['password'] for p in apis.supervisor.show_account_passwords()}\n"
        f"answer = apis.{app}.login(username=me['{username}'], password=passwords['{app}'])\n"
        "token = answer['access_token']"
    )


def username(app: str) -> str:
    """What the app's login goes by."""
    return "phone_number" if app == "phone" else "email"
