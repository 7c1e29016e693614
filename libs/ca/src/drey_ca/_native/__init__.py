"""The compiled part of the native channel table; importing it fails where it was not built.

libca and libCom are those of `epicscorelibs`, loaded here once for the whole process: `aioca` and
`p4p` use the same ones. The extension itself is linked with neither, so that no wheel carries a
second copy and any release of `epicscorelibs` that has these functions will do.
"""

import ctypes

from epicscorelibs.lib import ca_dsoinfo  # not `epicscorelibs.path`, which imports setuptools

LIBCA = ctypes.CDLL(ca_dsoinfo.sofilename, ctypes.RTLD_GLOBAL)
"""Where the extension finds its functions; made global before it is loaded."""

from drey_ca._native.table import Bulk, Table  # noqa: E402  finds libca's functions in the above

__all__ = ["Bulk", "Table"]
