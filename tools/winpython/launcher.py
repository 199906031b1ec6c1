"""``python.exe``, which no package brings: the smallest 64-bit Windows program that does what CPython's own does.

In C it would be this, and no compiler for Windows is needed to write it down::

    int main(void) {
        int argc;
        wchar_t **argv = CommandLineToArgvW(GetCommandLineW(), &argc);
        ExitProcess(Py_Main(argc, argv));
    }

The file is headers and one section. The names are those of Microsoft's "PE Format" specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import pack
from typing import Final

__all__ = ["launcher"]

_IMAGE_BASE: Final = 0x1_4000_0000
_SECTION: Final = 0x1000
"""Where the section begins in memory, counted from the image's base; in the file it comes after the headers."""
_HEADERS: Final = 0x200
"""Bytes that all headers have room in, and the unit of the file's parts."""
_DIRECTORIES: Final = 16
_IMPORTS, _IMPORT_ADDRESSES = 1, 12  # of the directories those that are not empty


def launcher(library: str) -> bytes:
    """Give the bytes of a ``python.exe`` whose interpreter is *library*, such as ``python312.dll``."""
    functions = {
        "KERNEL32.dll": ["GetCommandLineW", "ExitProcess"],
        "SHELL32.dll": ["CommandLineToArgvW"],
        library: ["Py_Main"],
    }
    section, directories, slots = _import_tables(functions)
    code = bytearray()

    def run(instruction: str) -> None:
        code.extend(bytes.fromhex(instruction))

    def call(function: str) -> None:
        run("ff 15")  # call [rip + the distance from the end of this instruction]
        code.extend(pack("<i", slots[function] - (_SECTION + len(section) + len(code) + 4)))

    run("48 83 ec 38")  # sub rsp, 56: room for what is called to save its arguments, and for argc; keeps rsp aligned
    call("GetCommandLineW")
    run("48 89 c1")  # mov rcx, rax
    run("48 8d 54 24 28")  # lea rdx, [rsp + 40]: &argc
    call("CommandLineToArgvW")
    run("8b 4c 24 28")  # mov ecx, [rsp + 40]: argc
    run("48 89 c2")  # mov rdx, rax: argv
    call("Py_Main")
    run("89 c1")  # mov ecx, eax
    call("ExitProcess")
    return _headers(_SECTION + len(section), len(section) + len(code), directories) + _padded(bytes(section + code))


def _import_tables(
    functions: Mapping[str, Sequence[str]],
) -> tuple[bytearray, dict[int, tuple[int, int]], dict[str, int]]:
    """Give the tables by which functions are found, the directory entries for them, and where each one's address is."""
    # In this order: addresses, descriptors, names. The loader finds a name where it then puts the address.
    count = sum(len(names) + 1 for names in functions.values())
    descriptors_at = _SECTION + 8 * count
    descriptors_size = 20 * (len(functions) + 1)
    names_at = descriptors_at + descriptors_size
    addresses, descriptors, names = bytearray(), bytearray(), bytearray()
    slots: dict[str, int] = {}
    for library, wanted in functions.items():
        first = _SECTION + len(addresses)
        for function in wanted:
            slots[function] = _SECTION + len(addresses)
            addresses += pack("<Q", names_at + len(names))
            names += pack("<H", 0) + function.encode() + b"\0"  # the number is a hint, and may be wrong
        addresses += pack("<Q", 0)
        descriptors += pack("<5I", 0, 0, 0, names_at + len(names), first)
        names += library.encode() + b"\0"
    descriptors += bytes(20)
    directories = {_IMPORTS: (descriptors_at, descriptors_size), _IMPORT_ADDRESSES: (_SECTION, len(addresses))}
    return addresses + descriptors + names, directories, slots


def _headers(entry: int, size: int, directories: Mapping[int, tuple[int, int]]) -> bytes:
    """Give the headers of a console program with one section of *size* bytes that is started at *entry*."""
    on_disk = len(_padded(bytes(size)))
    dos = pack("<2s58xI", b"MZ", 64)
    standard = pack("<HBBIIIII", 0x20B, 0, 0, on_disk, 0, 0, entry, _SECTION)
    windows = pack(
        "<QII6H4IHH4QII",
        *(_IMAGE_BASE, _SECTION, _HEADERS),
        *(6, 0, 0, 0, 6, 0),  # of the system, the image and the subsystem
        *(0, 2 * _SECTION, _HEADERS, 0),
        *(3, 0x8100),  # a console program; runs where data cannot be executed, and on terminal servers
        *(4 << 20, 1 << 16, 1 << 20, 1 << 12),  # stack and heap: reserved, committed
        *(0, _DIRECTORIES),
    )
    table = b"".join(pack("<II", *directories.get(number, (0, 0))) for number in range(_DIRECTORIES))
    optional = standard + windows + table
    coff = pack("<4sHHIIIHH", b"PE", 0x8664, 1, 0, 0, 0, len(optional), 0x23)  # for x86-64; not to be moved
    section = pack("<8s6IHHI", b".text", size, _SECTION, on_disk, _HEADERS, 0, 0, 0, 0, 0xE000_0060)
    return _padded(dos + coff + optional + section)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _HEADERS)
