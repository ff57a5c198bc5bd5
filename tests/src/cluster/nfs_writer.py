"""A client of NFSv3 in user space, for kernels without one: libnfs, called by ctypes. Appends numbered records to a file, each synced
before its number is said on stdout as `NUMBER MILLISECONDS`. Not robust by itself: it ends when nothing moves for two seconds (libnfs does
not always find back after a failover), and is started again with the number to go on with.

usage: nfs_writer.py nfs://ADDRESS/EXPORT?version=3 /FILE NEXT
"""

import ctypes
import os
import signal
import sys
import time

RECORD = 9
url, name, number = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
nfs = ctypes.CDLL("libnfs.so.13")
pointer = ctypes.c_void_p
for function in (nfs.nfs_init_context, nfs.nfs_parse_url_dir):
    function.restype = pointer
nfs.nfs_get_error.restype = ctypes.c_char_p


class Url(ctypes.Structure):
    _fields_ = [("server", ctypes.c_char_p), ("path", ctypes.c_char_p), ("file", ctypes.c_char_p)]


signal.alarm(2)
context = pointer(nfs.nfs_init_context())


def must(what, result):
    if result < 0:
        sys.exit(f"{what}: {nfs.nfs_get_error(context)}")
    return result


parsed = nfs.nfs_parse_url_dir(context, url.encode())
if not parsed:
    sys.exit(f"{url}: {nfs.nfs_get_error(context)}")
parsed = ctypes.cast(parsed, ctypes.POINTER(Url)).contents
must("mount", nfs.nfs_mount(context, parsed.server, parsed.path))
file = pointer()
if nfs.nfs_open(context, name, os.O_RDWR, ctypes.byref(file)) < 0:
    must("create", nfs.nfs_creat(context, name, 0o644, ctypes.byref(file)))
while True:
    record = b"%08d\n" % number
    # Always at the same place: one that was written and not acknowledged is written again.
    place = ctypes.c_uint64(number * RECORD)
    if must("write", nfs.nfs_pwrite(context, file, place, ctypes.c_uint64(RECORD), record)) != RECORD:
        sys.exit("a short write")
    must("fsync", nfs.nfs_fsync(context, file))
    print(number, int(time.time() * 1000), flush=True)
    number += 1
    signal.alarm(2)
    time.sleep(0.01)
