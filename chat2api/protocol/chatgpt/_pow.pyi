import ctypes
from typing import Literal

def search(
    algorithm: Literal["sha3-512", "fnv1a-32"],
    seed: bytes,
    head: bytes,
    middle: bytes | None,
    tail: bytes,
    start: int,
    stop: int,
    limit: int,
    cancel: bytearray | ctypes.Array[ctypes.c_ubyte],
    variant: str | None = None,
    /,
) -> int | None: ...
def variants() -> list[str]: ...
