"""Starts the sidecar that the extension brings along: `python -I start.py serve`.

Only what is built in is imported before the bundle is first on the path, so that nothing of the
interpreter's own packages is taken in its place. Written so that an old Python can read it, and
say that it is too old.
"""

import os
import sys

OLDEST = (3, 11)
HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    """Serve, or say in a sentence why this interpreter cannot."""
    if sys.argv[1:2] != ["serve"]:
        sys.exit("usage: start.py serve [--store PATH]")
    if sys.version_info < OLDEST:
        leave("Python 3.11 or newer is needed, and this is Python " + sys.version.split()[0])
    libs = os.path.join(HERE, "libs")
    if not os.path.isdir(libs):
        leave("the bundle has no libraries; build it with `npm run vsix`")
    sys.path[:0] = [compiled(), libs]
    from sidecar.app import serve

    return serve(sys.argv[2:], face="serve")


def compiled():
    """The folder of the compiled modules that were made for this interpreter."""
    from importlib.machinery import EXTENSION_SUFFIXES

    suffix = EXTENSION_SUFFIXES[0]  # version, build and platform, as in .cpython-313-x86_64-....so
    folder = os.path.join(HERE, "libs-cp{}{}".format(*sys.version_info[:2]))
    if not os.path.exists(os.path.join(folder, "msgspec", "_core" + suffix)):
        known = sorted(name[7:] for name in os.listdir(HERE) if name.startswith("libs-cp3"))
        leave(
            "the extension brings compiled modules for CPython "
            + ", ".join("3." + minor for minor in known)
            + " of one platform, and none that end in "
            + suffix
        )
    return folder


def leave(why):
    sys.exit("agent-sidecar cannot run with " + sys.executable + ": " + why + ".")


if __name__ == "__main__":
    sys.exit(main())
