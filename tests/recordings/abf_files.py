"""Small files in Axon Binary Format, version 1, as pCLAMP would write them."""

import struct

import numpy as np

RATE = 10_000.0


def write_abf(
    path,
    inputs,
    outputs,
    *,
    numbers=None,
    epochs=(),
    enabled=(1, 0),
    source=(1, 1),
    mode=5,
    alternating=0,
    user_list=None,
    telegraph=None,
):
    """Write sweeps at 10 kHz.

    Args:
        path: the file.
        inputs: name and unit of each channel, and its samples `[sweep, time]`.
        outputs: name and unit of each output; two at most play.
        numbers: of the inputs at the digitizer; 0, 1, ... by default.
        epochs: rows of output, type, level, increment, duration, period, width.
        enabled: nWaveformEnable.
        source: nWaveformSource.
        mode: nOperationMode.
        alternating: nAlternateDACOutputState.
        user_list: parameter and values.
        telegraph: nTelegraphMode of the first input.

    Returns:
        The path.
    """
    samples = np.stack([np.asarray(x, float) for _, _, x in inputs], -1)  # [sweep, time, channel]
    sweeps, length, count = samples.shape
    numbers = list(range(count)) if numbers is None else list(numbers)
    head = bytearray(6144)

    def put(code, offset, *values):
        struct.pack_into("<" + code, head, offset, *values)

    put("4sf", 0, b"ABF ", 1.84)
    put("hihi", 8, mode, samples.size, 0, sweeps)
    put("i", 20, 20_200_101)
    put("i", 40, 12)
    put("hf", 120, count, 1e6 / RATE / count)
    put("i", 138, length * count)
    put("ffii", 244, 10.0, 10.0, 32768, 32768)
    put("16h", 410, *numbers, *[-1] * (16 - count))
    for array, value in ((730, 1.0), (922, 1.0), (1050, 1.0), (4576, 1.0)):
        put("16f", array, *[value] * 16)
    raw = np.empty(samples.shape, "<i2")
    for i, (n, (name, unit, _)) in enumerate(zip(numbers, inputs, strict=True)):
        scale = max(np.abs(samples[..., i]).max(), 1.0) / 32000
        put("f", 922 + 4 * n, 10.0 / 32768 / scale)
        put("10s", 442 + 10 * n, name.encode().ljust(10))
        put("8s", 602 + 8 * n, unit.encode().ljust(8))
        raw[..., i] = np.round(samples[..., i] / scale)
    for i, (name, unit) in enumerate(outputs):
        put("10s", 1306 + 10 * i, name.encode().ljust(10))
        put("8s", 1346 + 8 * i, unit.encode().ljust(8))
    put("2h", 2296, *enabled)
    put("2h", 2300, *source)
    used = [0, 0]
    for output, kind, level, increment, duration, period, width in epochs:
        at = 10 * output + used[output]
        used[output] += 1
        put("h", 2308 + 2 * at, kind)
        put("f", 2348 + 4 * at, level)
        put("f", 2428 + 4 * at, increment)
        put("i", 2508 + 4 * at, duration)
        put("i", 2136 + 4 * at, period)
        put("i", 2216 + 4 * at, width)
    if user_list:
        put("h", 3360, 1)
        put("h", 3368, user_list[0])
        put("256s", 3376, ",".join(map(str, user_list[1])).encode())
    if telegraph is not None:
        put("h", 4512 + 2 * numbers[0], 1)
        put("h", 4768 + 2 * numbers[0], telegraph)
    put("h", 5876, alternating)
    path.write_bytes(bytes(head) + raw.tobytes())
    return path
