"""Practice: one call each, for a model that is only just learning to write any."""

from __future__ import annotations

import practice
from stage import Stage, scenario


def _stage(s: Stage, kind: practice.Kind) -> None:
    friend, _ = s.friends[s.variant % len(s.friends)]
    values = {**practice.draw(practice.generator(kind, s.variant), friend), "home": s.user.home}
    s.instruction = kind.ask(values, s.variant)
    row = {field: text.format_map(values) for field, text in kind.row.items()}
    owner: dict[str, object] = {"user_id": s.user.id}
    if kind.name == "mail":
        owner = {"sender_id": s.user.id, "recipient_ids": [friend.id]}
    elif kind.name in ("message", "request"):
        owner = {"sender_id": s.user.id, "receiver_id": friend.id}
    if kind.name == "request":
        owner["amount"] = float(values["amount"])
    s.expect_added(kind.model, **row, **owner)
    s.side_effects = dict.fromkeys(kind.side_effects, "added")
    token = f"{kind.app}_token"
    s.solve(kind.call(values, token=token))
    s.mistake(kind.call({**values, "title": values["title"].upper(), "text": values["title"]}, token=token))


for _kind in practice.KINDS:

    def _staged(s: Stage, kind: practice.Kind = _kind) -> None:
        _stage(s, kind)

    _staged.__name__ = f"practice_{_kind.name}"
    scenario(1, "practice", _kind.app, variants=practice.TRAINED + practice.HELD_OUT, held_out=practice.HELD_OUT)(
        _staged
    )
