"""Where trials are kept, as it may be shown: without the password that a URL may hold."""

import re
from urllib.parse import unquote

HIDDEN = "***"

_LOGIN = re.compile(r"(?<=://)([^:/?#@]*):(.*)@(?=[^@]*$)")
_WORD = re.compile(r"(?i)(?<=[?&])((?:ssl)?(?:password|passwd|pwd|token)=)([^&#]*)")


def shown(where: str) -> str:
    """A storage's URL or path without its password.

    >>> shown("postgresql://me:p@ss:word@db/autopar?sslpassword=x&a=b")
    'postgresql://me:***@db/autopar?sslpassword=***&a=b'
    >>> shown("sqlite:///trials.db")
    'sqlite:///trials.db'
    """
    return _WORD.sub(rf"\1{HIDDEN}", _LOGIN.sub(rf"\1:{HIDDEN}@", where))


def scrubbed(text: str, where: str) -> str:
    """A library's words about a storage without its password, in any of its spellings."""
    text = text.replace(where, shown(where))
    secrets = [found[1] for pattern in (_LOGIN, _WORD) for found in pattern.findall(where)]
    for secret in sorted({*secrets, *map(unquote, secrets)} - {""}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
