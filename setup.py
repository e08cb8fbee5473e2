"""Adds what pyproject.toml cannot say: the native proof-of-work search, built where there is a compiler.

Without a compiler the installation succeeds all the same and the search runs in Python, some five times slower.
"""

from setuptools import Extension, setup

# The limited interface holds the buffer protocol from 3.11 on, so one binary serves that and every later version.
OLDEST_PYTHON = 0x030B0000

setup(
    ext_modules=[
        Extension(
            "chat2api.protocol.chatgpt._pow",
            sources=["chat2api/protocol/chatgpt/_pow.c"],
            depends=["chat2api/protocol/chatgpt/_pow_lanes.h"],
            define_macros=[("Py_LIMITED_API", hex(OLDEST_PYTHON))],
            # No -march: the variants name their own instruction sets and the processor is asked when it runs.
            extra_compile_args=["-O3", "-fno-strict-aliasing"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
