"""Music: likes, playlists, the library."""

from __future__ import annotations

import world
from stage import Stage, scenario

_LIBRARY = """
        entries, page = [], 0
        while found := apis.spotify.show_song_library(page_index=page, access_token=spotify_token):
            entries, page = entries + found, page + 1
"""


def _library(s: Stage) -> list[int]:
    """Ids of the songs in the user's library, more than a page of them."""
    have = {row.song_id for row in s.models.spotify.UserLibrarySong.find_all(user_id=s.user.id)}
    for song in s.rng.sample(range(1, 121), 8):
        if song not in have:
            s.add("spotify.UserLibrarySong", user_id=s.user.id, song_id=song)
            have.add(song)
    return sorted(have)


@scenario(1, "train", "spotify")
def song_like(s: Stage) -> None:
    song = s.models.spotify.Song.by_id(s.pick(14, 57, 96))
    artist = s.models.spotify.Artist.by_id(song.artist_ids[0])
    s.add(
        "spotify.Song", title=f"{song.title} (Live)", artist_ids=song.artist_ids, duration=song.duration + 40,
        genre=song.genre, release_date="2023-02-01T00:00:00", play_count=9000,
    )  # fmt: skip
    s.expect_added("spotify.SongLike", user_id=s.user.id, song_id=int(song.id))
    s.side_effects = {"spotify.Song": ["like_count"]}
    s.instruction = s.pick(
        f"Like the song '{song.title}' by {artist.name} on Spotify.",
        f"I love '{song.title}', the one by {artist.name}. Give it a like on Spotify.",
        f"Spotify: like '{song.title}' ({artist.name}), the studio version, not the live one.",
    )
    body = """
        songs = apis.spotify.search_songs(query=<<title>>, page_limit=20)
        song = [s for s in songs if %s][0]
        apis.spotify.like_song(song_id=song['song_id'], access_token=spotify_token)
        """
    s.solve(body % "s['title'] == <<title>>", title=song.title)
    s.mistake(body % "s['title'].endswith('(Live)')", title=song.title)


@scenario(1, "dev", "spotify")
def artist_follow(s: Stage) -> None:
    artist = s.models.spotify.Artist.by_id(s.pick(3, 7, 11))
    s.expect_added("spotify.UserArtistFollowing", user_id=s.user.id, artist_id=int(artist.id))
    s.instruction = s.pick(
        f"Follow {artist.name} on Spotify.",
        f"I want to hear more from {artist.name}: follow them on Spotify, please.",
        f"Start following the artist {artist.name}.",
    )
    body = """
        artist = apis.spotify.search_artists(query=%s)[0]
        apis.spotify.follow_artist(artist_id=artist['artist_id'], access_token=spotify_token)
        """
    s.solve(body % "<<name>>", name=artist.name)
    s.mistake(body % "'The'")  # whoever comes first


@scenario(2, "train", "spotify")
def playlist_long(s: Stage) -> None:
    title, minutes = s.pick(("Long ones", 4), ("Slow evening", 5), ("Four and more", 4))
    songs = [s.models.spotify.Song.by_id(song) for song in _library(s)]
    s.expect_added("spotify.Playlist", user_id=s.user.id, title=title)
    for song in songs:
        if song.duration > 60 * minutes:
            s.expect_added(
                "spotify.PlaylistSong", song_id=int(song.id), playlist_id=s.new("spotify.Playlist", title=title)
            )
    s.instruction = s.pick(
        f"Make a Spotify playlist '{title}' with all songs of my song library that are longer than {minutes} minutes.",
        f"From my Spotify song library, put every song of more than {minutes} minutes into a new playlist '{title}'.",
        f"New playlist '{title}' on Spotify: all library songs over {minutes} minutes long.",
    )
    body = (
        _LIBRARY
        + """
        playlist_id = apis.spotify.create_playlist(title=<<title>>, access_token=spotify_token)['playlist_id']
        for entry in entries:
            if entry['duration'] > %s:
                apis.spotify.add_song_to_playlist(
                    playlist_id=playlist_id, song_id=entry['song_id'], access_token=spotify_token
                )
        """
    )
    s.solve(body % f"60 * {minutes}", title=title)
    s.mistake(body % minutes, title=title)


@scenario(2, "test", "spotify")
def library_oldest(s: Stage) -> None:
    songs = [s.models.spotify.Song.by_id(song) for song in _library(s)]
    last = s.variant == 1
    best = sorted(songs, key=lambda song: str(song.release_date), reverse=last)
    dates = [str(song.release_date) for song in best]
    only = [song for song in best if str(song.release_date) == dates[0]]
    for song in only[1:]:  # so that the answer is one song
        row = s.models.spotify.UserLibrarySong.find_one(user_id=s.user.id, song_id=song.id)
        row.delete()
    s.answer = only[0].title
    s.instruction = s.pick(
        "Which song in my Spotify song library was released first? Its title, please.",
        "What is the title of the most recently released song in my Spotify library of songs?",
        "Title of the oldest song (by release date) in my Spotify song library?",
    )
    body = (
        _LIBRARY
        + """
        songs = [apis.spotify.show_song(song_id=entry['song_id']) for entry in entries]
        songs.sort(key=lambda song: song[%s])
        """
    )
    place = "songs[-1]['title']" if last else "songs[0]['title']"
    s.solve(body % "'release_date'", place)
    s.mistake(body % "'title'", place)


@scenario(3, "dev", "phone", "spotify")
def playlist_text(s: Stage) -> None:
    friend, _ = s.friends[1 + s.variant]
    title = s.pick("From a friend", "Recommended", "Try these")
    songs = [s.models.spotify.Song.by_id(song) for song in s.rng.sample(range(1, 121), 4)]
    world.text(
        s.models, friend, s.user, f"Listen to these: {'; '.join(song.title for song in songs)}", "2024-05-16T21:10:00"
    )
    s.expect_added("spotify.Playlist", user_id=s.user.id, title=title)
    for song in songs:
        s.expect_added("spotify.PlaylistSong", song_id=int(song.id), playlist_id=s.new("spotify.Playlist", title=title))
    s.instruction = s.pick(
        f"{friend.name} texted me some song titles. Make a Spotify playlist '{title}' of them.",
        f"Put the songs that {friend.name} recommended by text message into a new Spotify playlist called '{title}'.",
        f"There is a text from {friend.name} with songs to listen to. They should become my playlist '{title}' on "
        "Spotify.",
    )
    body = """
        number = apis.phone.search_contacts(query=<<name>>, access_token=phone_token)[0]['phone_number']
        texts = apis.phone.search_text_messages(phone_number=number, page_limit=20, access_token=phone_token)
        text = [t['message'] for t in texts if t['message'].startswith('Listen to these: ')][0]
        playlist_id = apis.spotify.create_playlist(title=<<title>>, access_token=spotify_token)['playlist_id']
        for name in text.removeprefix('Listen to these: ').split('; ')%s:
            found = apis.spotify.search_songs(query=name, page_limit=20)
            song_id = [song for song in found if song['title'] == name][0]['song_id']
            apis.spotify.add_song_to_playlist(playlist_id=playlist_id, song_id=song_id, access_token=spotify_token)
        """
    s.solve(body % "", name=friend.name, title=title)
    s.mistake(body % "[1:]", name=friend.name, title=title)


@scenario(2, "train", "spotify")
def unlike_all(s: Stage) -> None:
    artist = s.models.spotify.Artist.by_id(s.pick(2, 5, 9))
    for song in s.models.spotify.Song.find_all():
        mine = artist.id in song.artist_ids
        if mine or song.id % 17 == 0:
            like = s.add("spotify.SongLike", user_id=s.user.id, song_id=song.id)
            if mine:
                s.expect_removed("spotify.SongLike", int(like.id))
    s.side_effects = {"spotify.Song": ["like_count"]}
    s.instruction = s.pick(
        f"I have had enough of {artist.name}. Take my likes back from all of their songs on Spotify.",
        f"Unlike every song by {artist.name} that I have liked on Spotify.",
        f"Remove my Spotify likes from all songs of {artist.name}, and from those only.",
    )
    body = """
        songs, page = [], 0
        while found := apis.spotify.show_liked_songs(page_index=page, access_token=spotify_token):
            songs, page = songs + found, page + 1
        for song in songs:
            if %s:
                apis.spotify.unlike_song(song_id=song['song_id'], access_token=spotify_token)
        """
    s.solve(body % "<<name>> in [artist['name'] for artist in song['artists']]", name=artist.name)
    s.mistake(body % "True")
