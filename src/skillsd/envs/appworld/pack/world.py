"""The small world that all tasks of the pack happen in: its people, their accounts, and what they have lying about.

Everything is made up here, from one seed; the engine's models write it into its databases.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

#: Now, for everybody: a Friday morning.
CLOCK = "2024-05-17T09:30:00"
APPS = ("simple_note", "todoist", "phone", "venmo", "splitwise", "file_system", "spotify", "gmail")

_PEOPLE = """
Nora Lindqvist, Tomas Brandt, Imani Okafor, Felix Moreau, Greta Solberg, Dev Raman, Lucia Ferrante, Owen Pryce,
Hana Kimura, Marek Dvorak, Sade Balogun, Elliot Voss, Priya Nair, Caspar Hale, Yara Haddad, Bruno Teixeira,
Maeve Donnelly, Anton Petrov, Rosa Delgado, Silas Whitlock, Leila Farahani, Kofi Mensah, Ingrid Dahl, Theo Lambert,
Mina Castellan, Jonah Reyes, Freya Nyberg, Samir Aziz
"""
_ARTISTS = {
    "Paper Lanterns": "indie", "The Salt Roads": "folk", "Neon Orchard": "pop", "Velvet Static": "rock",
    "Mira Sol": "pop", "Cold Harbour": "electronic", "Juniper Vale": "folk", "Brass Monday": "jazz",
    "Glass Pilots": "rock", "Odessa Lane": "indie", "Slow Comet": "electronic", "Ruth Amber": "jazz",
}  # fmt: skip
_FIRST = "Silver Broken Quiet Distant Paper Golden Hollow Winter Borrowed Electric Velvet Northern".split()
_SECOND = "River Mirror Summer Letters Engine Garden Harbour Thunder Avenue Shadows Morning Satellite".split()
_ALBUMS = (
    "Afterglow,Low Tide,Maps for No One,Second Spring,Night Bus,Small Fires,Cartwheels,Long Way Down,Ferry Town,"
    "Half Light,Postcards,Hinterland,Loose Change,Blue Hour,Kitchen Songs,Undertow,Signal and Noise,Tall Grass,"
    "After the Fair,Copper Wire,Weekday Ghosts,Lantern Street,Slow Burn,Open Windows"
).split(",")
_NOTES = {
    "Paint colours": "Hallway: warm grey. Kitchen: off white.", "Wifi at the cabin": "Network: birchwood. Ask Ingrid.",
    "Shoe sizes": "Me 42, kids 31 and 34.", "Bike service": "Brakes done in March, chain next.",
    "Plant care": "Fern: water twice a week. Cactus: forget it.", "Films to see": "The Quiet Harbour, Two Clocks, Ash.",
}  # fmt: skip
_CHORES = "Renew library card|Book dentist|Descale kettle|Return parcel|Call the plumber|Sort winter coats".split("|")
_TEXTS = (
    "Are you around this weekend?", "Running ten minutes late, sorry!", "Did you get the tickets?",
    "Thanks again for dinner.", "Can you send me that recipe?", "Train is delayed, start without me.",
)  # fmt: skip
TREATS = "coffee,lunch,cinema tickets,taxi,groceries,concert,parking,birthday gift".split(",")
_RELATIONS = (("friend",), ("coworker",), ("roommate", "friend"), ("sibling",), ("coworker", "friend"))


@dataclass(frozen=True)
class Person:
    """Somebody with an account in every app; ``id`` is the same in all of them."""

    id: int
    first: str
    last: str
    phone: str
    birthday: str
    sex: str

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"

    @property
    def email(self) -> str:
        """The address of all accounts."""
        return f"{self.first}.{self.last}@postbird.com".lower()

    @property
    def home(self) -> str:
        """The home folder in the file system app."""
        return f"/home/{self.first.lower()}/"

    def password(self, app: str) -> str:
        """A password of its own for each app."""
        return f"{self.first[:3].lower()}-{random.Random(f'{self.email} {app}').randrange(10**6):06d}"

    def login(self, app: str) -> str:
        """The user name: the phone app goes by number, all others by address."""
        return self.phone if app == "phone" else self.email


def people() -> list[Person]:
    """The same people every time."""
    rng, found = random.Random("people"), []
    for number, name in enumerate((n.strip() for n in _PEOPLE.replace("\n", " ").split(",")), 1):
        first, last = name.split()
        phone = f"555{rng.randrange(10**7):07d}"
        birthday = f"{rng.randrange(1962, 2001)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 28):02d}"
        found.append(Person(number, first, last, phone, birthday, rng.choice(("male", "female"))))
    return found


def friends(person: Person) -> list[tuple[Person, tuple[str, ...]]]:
    """Whom ``person`` has as phone contacts, with their relationships; it is mutual."""
    everyone = people()
    found: list[tuple[Person, tuple[str, ...]]] = []
    for step in (1, 2, 3, 5, 8):
        relation = _RELATIONS[step % len(_RELATIONS)]
        for index in (person.id - 1 + step, person.id - 1 - step):
            other = everyone[index % len(everyone)]
            if other.id != person.id and all(other.id != friend.id for friend, _ in found):
                found.append((other, relation))
    return found


def seed_base(models: Any) -> None:
    """Fill the empty databases ``models`` with people, contacts, the music catalogue and background."""
    everyone = people()
    for person in everyone:
        same = {"first_name": person.first, "last_name": person.last}
        models.admin.MainUser.create_save(
            **same, email=person.email, phone_number=person.phone, birthday=person.birthday, sex=person.sex
        )
        for app in APPS:
            by = {"phone_number": person.phone} if app == "phone" else {"email": person.email}
            extra = {"venmo_balance": 400.0 + 25 * person.id} if app == "venmo" else {}
            verified = {} if app in ("phone", "gmail") else {"verified": True}
            models[app].User.create_save(**same, **by, **extra, **verified, password=person.password(app))
    _contacts(models, everyone)
    _catalogue(models)
    for person in everyone:
        _belongings(models, person, random.Random(f"belongings {person.id}"))
    _traffic(models, everyone)


def _contacts(models: Any, everyone: list[Person]) -> None:
    for person in everyone:
        for other, relations in friends(person):
            models.phone.Contact.create_save(
                user_id=person.id, first_name=other.first, last_name=other.last, email=other.email,
                phone_number=other.phone, relationships=list(relations), birthday=other.birthday,
            )  # fmt: skip
            models.venmo.Friendship.create_save(user_id=person.id, friend_id=other.id)


def _catalogue(models: Any) -> None:
    rng, titles = random.Random("catalogue"), [f"{a} {b}" for a in _FIRST for b in _SECOND]
    rng.shuffle(titles)
    for artist, (name, genre) in enumerate(_ARTISTS.items(), 1):
        models.spotify.Artist.create_save(name=name, genre=genre)
        for place in range(2):
            year = 2012 + (artist * 5 + place * 3) % 12
            released = f"{year}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 28):02d}T00:00:00"
            album = models.spotify.Album.create_save(
                title=_ALBUMS[artist * 2 + place - 2],
                artist_ids=[artist], release_date=released, genre=genre,
            )  # fmt: skip
            for _ in range(5):
                models.spotify.Song.create_save(
                    title=titles.pop(), artist_ids=[artist], album_id=album.id, duration=rng.randrange(120, 400),
                    release_date=released, genre=genre, play_count=rng.randrange(50, 5000), rating=0.0,
                )  # fmt: skip


def _belongings(models: Any, person: Person, rng: random.Random) -> None:
    for title in rng.sample(sorted(_NOTES), 3):
        models.simple_note.Note.create_save(
            user_id=person.id, title=title, content=_NOTES[title], tags=["home"], pinned=False
        )
    inbox = models.todoist.Project.create_save(user_id=person.id, name="Inbox", is_inbox=True, color="charcoal")
    models.todoist.ProjectCollaboratorLink.create_save(project_id=inbox.id, user_id=person.id)
    for order, title in enumerate(rng.sample(_CHORES, 3)):
        models.todoist.Task.create_save(
            project_id=inbox.id, user_id=person.id, title=title, order_index=order, priority="medium"
        )
    for path in ("/", "/home/", person.home, f"{person.home}documents/", f"{person.home}downloads/"):
        models.file_system.Directory.create_save(user_id=person.id, path=path)
    models.file_system.File.create_save(
        user_id=person.id, path=f"{person.home}documents/readme.txt", content="Papers and lists."
    )
    models.spotify.MusicPlayer.create_save(user_id=person.id)
    for song in rng.sample(range(1, 121), 4):
        models.spotify.UserLibrarySong.create_save(user_id=person.id, song_id=song)
    models.venmo.PaymentCard.create_save(
        user_id=person.id, card_name="Everyday card", owner_name=person.name, expiry_year=2028, expiry_month=6,
        card_number=4_000_000_000_000_000 + person.id, cvv_number=100 + person.id,
    )  # fmt: skip


def _traffic(models: Any, everyone: list[Person]) -> None:
    rng = random.Random("traffic")
    for person in everyone:
        for other, _ in rng.sample(friends(person), 3):
            day, hour = rng.randrange(1, 15), rng.randrange(8, 22)
            text(models, person, other, rng.choice(_TEXTS), f"2024-05-{day:02d}T{hour:02d}:15:00")
            amount, what = rng.randrange(4, 60), rng.choice(TREATS)
            paid(models, person, other, amount, what, f"2024-03-{rng.randrange(1, 29):02d}T12:00:00")


def text(models: Any, sender: Person, receiver: Person, message: str, at: str) -> None:
    """A text message that both have."""
    sent = models.phone.GlobalTextMessage.create_save(
        sender_id=sender.id, receiver_id=receiver.id, message=message, created_at=at
    )
    for person in (sender, receiver):
        models.phone.UserTextMessage.create_save(global_text_message_id=sent.id, user_id=person.id, created_at=at)


def paid(models: Any, sender: Person, receiver: Person, amount: float, description: str, at: str) -> Any:
    """A payment that has taken place."""
    return models.venmo.Transaction.create_save(
        sender_id=sender.id, receiver_id=receiver.id, amount=float(amount), description=description, created_at=at,
        updated_at=at, private=False,
    )  # fmt: skip
