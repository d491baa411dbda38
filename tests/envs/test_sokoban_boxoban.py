"""The Boxoban loader: what it closes, what it pads, and what it refuses."""

import pytest

from skillsd.envs.sokoban.game import read_boxoban
from skillsd.errors import SkillSDError

# A hand-made room with a notch in its wall: the blanks of the notch are outside.
NOTCHED = """\
   ####  ####
   #  #  #  #
 ### $####  #
 #  @     . #
 ############
"""


def test_blanks_outside_are_wall():
    (level,) = read_boxoban(NOTCHED)
    assert level.split("\n") == [
        "#############",
        "####__####__#",
        "####_X####__#",
        "##__P_____O_#",
        "#############",
    ]


def test_all_glyphs_endings_and_titles_are_read():
    plain = "; 0\n######\n#+$* #\n######\n\n; 1\n#####\n#@$.#\n#####\n"
    expected = ["######\n#SXT_#\n######", "#####\n#PXO#\n#####"]
    assert read_boxoban(plain) == expected
    assert read_boxoban(plain.replace("\n", "\r\n")) == expected
    assert read_boxoban("\ufeff" + plain) == expected
    assert read_boxoban("\n\n" + plain.replace("\n\n", "\n   \n\n")) == expected
    assert read_boxoban(plain.replace("* ", "*-")) == expected
    assert read_boxoban(plain.replace("#\n", "#  \n")) == expected


def test_walls_only_matter_where_the_player_can_get():
    assert read_boxoban("##### ####\n#@$.# #  #\n##### ####\n") == ["##########\n#PXO######\n##########"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no level found"),
        ("; only a title\n", "no level found"),
        ("#####\n#@$.\n#####", "level 1: malformed level: the room is not closed"),
        ("####\n#@$.#\n#  \n####", "level 1: malformed level: the room is not closed"),
        ("@$.", "not closed"),
        ("#####\n#@$.#\n#####\n\n#####\n#@?.#\n#####", "level 2: unknown glyph '\\?'"),
        ("#####\n#@\t.#\n#####", "level 1: unknown glyph"),
        ("#####\n# $.#\n#####", "0 players"),
        ("######\n#@@$.#\n######", "2 players"),
        ("######\n#@$$.#\n######", "2 boxes and 1 targets"),
        ("####\n#@ #\n####", "0 boxes"),
    ],
)
def test_malformed_files_are_refused_with_the_level_and_the_reason(text, reason):
    with pytest.raises(SkillSDError, match=reason):
        read_boxoban(text)


def test_a_huge_level_is_read_in_no_time():
    side = 400
    rows = ["#" * side, "#@$." + " " * (side - 5) + "#", *["#" + " " * (side - 2) + "#"] * side, "#" * side]
    (level,) = read_boxoban("\n".join(rows))
    assert level.count("_") == (side - 5) + side * (side - 2)
