# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of libbpf as the benchmarks need, by ctypes."""
import ctypes
import mmap
import os
from pathlib import Path

XDP_DROP, XDP_PASS = 1, 2  # linux/bpf.h, as the four below
BPF_PROG_TYPE_EXT = 28
BPF_F_XDP_HAS_FRAGS = 1 << 5
BPF_F_TEST_XDP_LIVE_FRAMES = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2  # linux/if_link.h

_lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
_lib.libbpf_set_print(None)
for _name in ("bpf_object__open_file", "bpf_object__find_program_by_name", "bpf_object__find_map_by_name",
              "bpf_map__initial_value"):
    getattr(_lib, _name).restype = ctypes.c_void_p


class _TestRun(ctypes.Structure):
    """struct bpf_test_run_opts"""
    _fields_ = [("sz", ctypes.c_size_t), ("data_in", ctypes.c_char_p), ("data_out", ctypes.c_void_p),
                ("data_size_in", ctypes.c_uint32), ("data_size_out", ctypes.c_uint32),
                ("ctx_in", ctypes.c_char_p), ("ctx_out", ctypes.c_void_p),
                ("ctx_size_in", ctypes.c_uint32), ("ctx_size_out", ctypes.c_uint32),
                ("retval", ctypes.c_uint32), ("repeat", ctypes.c_int), ("duration", ctypes.c_uint32),
                ("flags", ctypes.c_uint32), ("cpu", ctypes.c_uint32), ("batch_size", ctypes.c_uint32)]


class _Batch(ctypes.Structure):
    """struct bpf_map_batch_opts"""
    _fields_ = [("sz", ctypes.c_size_t), ("elem_flags", ctypes.c_uint64), ("flags", ctypes.c_uint64)]


def _check(result, what):
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


def _found(pointer, what):
    if not pointer:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return ctypes.c_void_p(pointer)


class Object:
    """A BPF object file: opened, sized, loaded.

    `sizes`: max_entries by map; `constants`: the bytes of .rodata; `flags` go to every program.
    """

    def __init__(self, path, sizes=(), constants=None, flags=0):
        self.path, self._fds = path, {}
        self._object = _found(_lib.bpf_object__open_file(os.fsencode(path), None), path)
        try:
            for name, entries in dict(sizes).items():
                _check(_lib.bpf_map__set_max_entries(self._find("map", name), ctypes.c_uint32(entries)), name)
            if constants is not None:
                self._set_constants(constants)
            program = None
            while program := _next_program(self._object, program):
                _lib.bpf_program__set_flags(program, ctypes.c_uint32(flags))
            _check(_lib.bpf_object__load(self._object), path)
        except OSError:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        _lib.bpf_object__close(self._object)

    def _find(self, kind, name):
        find = getattr(_lib, f"bpf_object__find_{kind}_by_name")
        return _found(find(self._object, name.encode()), f"{self.path}: {name}")

    def _set_constants(self, content):
        size = ctypes.c_size_t()
        at = _lib.bpf_map__initial_value(self._find("map", ".rodata"), ctypes.byref(size))
        assert at and size.value >= len(content)
        ctypes.memmove(at, content, len(content))

    def program(self, name):
        return _lib.bpf_program__fd(self._find("program", name))

    def map(self, name):
        return _lib.bpf_map__fd(self._find("map", name))


_lib.bpf_object__next_program.restype = ctypes.c_void_p


def _next_program(obj, program):
    at = _lib.bpf_object__next_program(obj, program)
    return ctypes.c_void_p(at) if at else None


def open_pinned(path):
    fd = _lib.bpf_obj_get(os.fsencode(path))
    return _check(fd if fd >= 0 else -ctypes.get_errno(), path)


def update(fd, key, value):
    _check(_lib.bpf_map_update_elem(fd, key, value, ctypes.c_uint64(0)), "map update")


def update_batch(fd, keys, values, count):
    """`keys` and `values`: the bytes of all, one after another."""
    done = ctypes.c_uint32(count)
    options = _Batch(sz=ctypes.sizeof(_Batch))
    _check(_lib.bpf_map_update_batch(fd, keys, values, ctypes.byref(done), ctypes.byref(options)), "batch update")
    assert done.value == count


def map_memory(fd, size):
    return mmap.mmap(fd, size)


def attach_native(ifindex, fd):
    _check(_lib.bpf_xdp_attach(ifindex, fd, XDP_FLAGS_DRV_MODE, None), "attach in native mode")


def test_run(fd, packet, repeat=1, live_from=None):
    """The last run's return code; with `live_from` (an ifindex), frames that really go out there."""
    options = _TestRun(sz=ctypes.sizeof(_TestRun), data_in=packet, data_size_in=len(packet), repeat=repeat)
    if live_from is not None:
        # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        context = b"".join(word.to_bytes(4, "little") for word in (0, len(packet), 0, live_from, 0, 0))
        options.ctx_in, options.ctx_size_in = context, len(context)
        options.flags = BPF_F_TEST_XDP_LIVE_FRAMES
    _check(_lib.bpf_prog_test_run_opts(fd, ctypes.byref(options)), "BPF_PROG_TEST_RUN")
    return options.retval


def descriptor_info(fd, pid="self"):
    """{name: text} of what the kernel tells of a BPF descriptor."""
    lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def open_map(map_id):
    fd = _lib.bpf_map_get_fd_by_id(ctypes.c_uint32(map_id))
    return _check(fd if fd >= 0 else -ctypes.get_errno(), f"map {map_id}")


def lookup(fd, key, size):
    value = ctypes.create_string_buffer(size)
    _check(_lib.bpf_map_lookup_elem(fd, key, value), "map lookup")
    return value.raw


def possible_cpus():
    return _check(_lib.libbpf_num_possible_cpus(), "possible CPUs")


def delete(fd, key):
    _check(_lib.bpf_map_delete_elem(fd, key), "map delete")
