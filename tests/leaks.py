"""Whether a key can be read off a text, by whoever knows the usual codes."""

import base64
import html
import re
import urllib.parse


def leaks(key, text, depth=3):
    """Whether 12 characters of the key can be read off ``text``, as it is or after undoing codes on each other."""
    keys, gone = (key.lower(), html.unescape(urllib.parse.unquote(key)).lower()), r"[\s\u200b]"
    for _ in range(2 * depth + 1):
        seen = re.sub(gone, "", text).lower()
        if any(form[at : at + 12] in seen for form in keys for at in range(max(1, len(form) - 11))):
            return True
        text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
        text = re.sub(r"\\+[nrt]", "", text).replace("\\", "")
        text = re.sub(gone, "", html.unescape(urllib.parse.unquote(text, "latin-1")))
    if depth:
        for word in re.findall(r"[A-Za-z0-9+/=_-]{11,}", text):
            plain = word.replace("-", "+").replace("_", "/").replace("=", "A")
            for start in range(4):
                part = plain[start:]
                unpacked = base64.b64decode(part + "A" * (-len(part) % 4))
                if any(leaks(key, run.decode(), depth - 1) for run in re.findall(rb"[\s -~]{8,}", unpacked)):
                    return True
        for word in re.findall(r"[0-9a-fA-F]{16,}", text):
            for digits in (word, word[1:]):
                unpacked = bytes.fromhex(digits[: len(digits) // 2 * 2])
                if any(leaks(key, run.decode(), depth - 1) for run in re.findall(rb"[\s -~]{8,}", unpacked)):
                    return True
    return False
