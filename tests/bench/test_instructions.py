"""The counts of executed instructions: a listing of a few lines, whose result and counts are known."""

import numpy as np
import pytest

from benchmarks import instructions, sass
from gpuresample.engines.cuda.runtime import Launch, Pointer, Types

# out[64 b + t] = 1 + 2 + ... + u % 4, where u = 63 - t: a loop that lanes leave one after the other, then an exchange.
PROGRAM = """
S2R R0, SR_TID.X
S2R R1, SR_CTAID.X
LDC.64 R2, c[0x0][0x210]
LOP3.LUT R4, R0, 0x3, RZ, 0xc0, !PT
MOV R5, RZ
ISETP.EQ.AND P0, PT, R4, RZ, PT
@P0 BRA 0xa0
IADD3 R5, R5, R4, RZ
IADD3 R4, R4, -0x1, RZ
BRA 0x50
SHF.L.U32 R8, R0, 0x2, RZ
STS [R8], R5
BAR.SYNC.DEFER_BLOCKING 0x0
IADD3 R9, -R0, 0x3f, RZ
SHF.L.U32 R9, R9, 0x2, RZ
LDS R5, [R9]
IMAD R7, R1, 0x40, R0
IMAD.WIDE R2, R7, 0x4, R2
I2FP.F32.S32 R5, R5
STG.E desc[UR4][R2.64], R5
EXIT
"""
ALWAYS, HEAD, BODY, AFTER = 5, 2, 3, 11


def machine(program, out, blocks=2):
    memory = sass.Memory()
    memory.add(out)
    address = Pointer(out.__array_interface__["data"][0], 4, out)
    launch = Launch("listing", "listing", Types("int32", "float32"), blocks, (64, 1), (address,), 256)
    return sass.Machine([line for line in program.split("\n") if line], launch, memory, 90)


def test_a_listing_gives_its_result_and_its_counts():
    out = np.zeros(130, np.float32)
    it = machine(PROGRAM, out[:128])
    it.run()
    u = (63 - np.arange(64)) % 4
    assert (out[:128].reshape(2, 64) == u * (u + 1) // 2).all()
    assert (out[128:] == 0).all()
    warps = 4
    # The loop's head is executed for lanes that leave at once, after one turn, two and three.
    assert it.counts["instructions"] == warps * (ALWAYS + 4 * HEAD + 3 * BODY + AFTER)
    assert it.counts["shared"] == warps * 2
    assert it.counts["global"] == warps
    assert it.counts["conversions"] == warps
    # 32 words that lie side by side: one turn for every access; 128 bytes are 4 sectors, or 5 if they begin amid one.
    assert it.counts["wavefronts"] == warps * 2
    assert warps * 4 <= it.counts["sectors"] <= warps * 5


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("IMAD R7, R1, 0x40, R0", "IMAD R7, R1, 0x41, R0", IndexError, "nobody's"),
        ("LDS R5, [R9]", "LDS R5, [R9+0x1000]", IndexError, "of shared memory"),
        ("LDS R5, [R9]", "LDS R5, [R9+0x2]", IndexError, "of shared memory"),
        ("I2FP.F32.S32 R5, R5", "UNHEARD.OF R5, R5", NotImplementedError, "UNHEARD.OF R5, R5"),
    ],
)
def test_what_is_wrong_or_unknown_is_said(old, new, error, message):
    assert old in PROGRAM
    with pytest.raises(error, match=message):
        machine(PROGRAM.replace(old, new), np.zeros(128, np.float32)).run()


def test_banks_that_meet_take_turns():
    # Lanes write every second word: two of them in each bank.
    it = machine(PROGRAM.replace("SHF.L.U32 R8, R0, 0x2", "SHF.L.U32 R8, R0, 0x3"), np.zeros(128, np.float32))
    it.room, it.shared = 1024, np.zeros((2, 1024), np.uint32)
    it.run()
    assert it.counts["wavefronts"] == 4 * (2 + 1)


@pytest.mark.kernels
def test_the_kernels_code_gives_what_their_text_does():
    """Where the compiler of run time and the disassembler are installed."""
    try:
        sass.disassembler()
        sass.compiled("")
    except RuntimeError as error:
        pytest.skip(str(error))
    job = instructions.separable("small", 16, 2, "nearest", "int16", "int16")
    kernels, launches, difference = instructions.counted(job)
    assert difference == 0
    assert launches.total() == 1
    assert 1 < sum(c["instructions"] for c in kernels.values()) * sass.WARP / job.voxels < 500
