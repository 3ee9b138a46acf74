# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace file: what it looks like, writing it, reading it, judging it. The only package that knows msgpack and zstd.

    layout     the picture of the file, the table of objects, the limits
    writer     TraceWriter: a recording, frame by frame
    reader     TraceReader: closed, torn and live traces
    lineage    the parents of a fork, by hash
    tracefile  TraceFile: one file of a trace; a fork's trace is in several
    recovery   verify_chain, repair
    digests    hashes of RAM, outputs, state and content
    codec      pack, unpack_stream
    objects    what a well-formed object is, their order, the index        (used by the ones above)
    frames     frames, links and the seek table as bytes in a file         (used by the ones above)

No clock, no thread, no randomness: the caller decides when a frame is written.
"""
