from __future__ import annotations

import os
import threading
import time

from runtime.raw_write import write_bounded


def test_a_pipe_that_is_read_takes_everything() -> None:
    reader, writer = os.pipe()
    data = b"x" * 300_000
    got = bytearray()

    def read() -> None:
        while chunk := os.read(reader, 65536):
            got.extend(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    assert write_bounded(writer, data, seconds=10)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert bytes(got) == data


def test_a_pipe_that_nobody_reads_costs_no_more_than_the_bound() -> None:
    reader, writer = os.pipe()
    start = time.monotonic()
    assert not write_bounded(writer, b"x" * 300_000, seconds=0.1)
    assert time.monotonic() - start < 2
    assert not write_bounded(writer, b"x")
    os.close(reader)
    os.close(writer)


def test_a_reader_that_is_gone_and_a_closed_descriptor_are_false_not_errors() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert not write_bounded(writer, b"x", seconds=1)
    os.close(writer)
    assert not write_bounded(writer, b"x", seconds=1)
    assert not write_bounded(-1, b"x", seconds=1)
