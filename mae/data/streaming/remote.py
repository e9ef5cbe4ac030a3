"""Files that are read from their beginning, wherever they lie: here, over http, in a bucket."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import fsspec

WAITS = (2.0, 10.0)
"""Seconds between the attempts to reach a file."""
REFUSED = (FileNotFoundError, IsADirectoryError, PermissionError, ImportError, ValueError)
"""What another attempt would not mend."""


class UnreachableError(ValueError):
    """A file that is not there, or cannot be reached."""


class MissingError(UnreachableError):
    """A file that is not there, as those who should know say."""


class RemoteFile:
    """A file that is opened anew, and read on from where it was, as often as the connection fails: three times in a row at most.

    Args:
        url: A path, or a URL of any kind that fsspec knows.

    Attributes:
        tail: The last bytes that were read, 512 at most.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.tail = b""
        self._position = 0
        self._file: Any = None

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, ``size`` at most; none at the end.

        Raises:
            UnreachableError: It is not there, or every attempt failed.
        """
        for wait in (*WAITS, None):
            try:
                return self._read(size)
            except Exception as error:  # each kind of storage has errors of its own
                self._file = None  # closing what has failed may fail as well
                if _refused(error):
                    missing = isinstance(error, FileNotFoundError) or getattr(error, "status", 0) in (403, 404, 410)
                    raise (MissingError if missing else UnreachableError)(f"{self.url} {_reason(error)}") from None
                if wait is None:
                    raise UnreachableError(
                        f"{self.url} cannot be read, after {len(WAITS) + 1} attempts ({_words(error)}): check the address and the "
                        f"connection; a run goes on with resume=true"
                    ) from None
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _read(self, size: int) -> bytes:
        if self._file is None:
            self._file = open_file(self.url)
            self._pass_over(self._position)
        data: bytes = self._file.read(size)
        self._position += len(data)
        self.tail = (self.tail + data[-512:])[-512:]
        return data

    def _pass_over(self, count: int) -> None:
        while count:
            data = self._file.read(min(count, 1 << 20))
            if not data:
                raise OSError("it has become shorter")
            count -= len(data)


def open_file(url: str) -> Any:
    """Open a file for reading, in one request where it comes over http."""
    if not url.startswith(("http://", "https://")):
        return fsspec.open(url, "rb").open()
    import aiohttp  # as fsspec does

    # By default aiohttp ends a download after five minutes. The size, which streaming does not need, would cost a request.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    files = fsspec.filesystem("http", client_kwargs={"timeout": timeout, "trust_env": True})  # proxies
    return files.open(url, "rb", block_size=0, size=1)


def _refused(error: Exception) -> bool:
    status = getattr(error, "status", 0)  # of http: 408 and 429 ask for patience
    return isinstance(error, REFUSED) or (400 <= status < 500 and status not in (408, 429))


def _reason(error: Exception) -> str:
    return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({_words(error)})"


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
