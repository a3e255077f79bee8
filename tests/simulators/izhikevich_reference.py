"""Izhikevich's neurons in plain NumPy, each form from its own equations."""

import numpy as np


def membrane_2003(v):
    """The polynomial of 2003, as printed."""
    return 0.04 * v * v + 5 * v + 140


def programme(p, drive, dt, substeps=1, form=2003):
    """The scheme of the printed programme of 2003: v in parts, then u; a spike is what ends a step above the peak.

    Args:
        p: a, b, c, d and, for the form of 2007, C, k, v_r, v_t and v_peak.
        drive: current in each step.
        dt: time step.
        substeps: parts of v's step.
        form: 2003 or 2007.

    Returns:
        v and u after each step, and whether there was a spike.
    """
    v, rest = (-65.0, 0.0) if form == 2003 else (p["v_r"], p["v_r"])
    u, seen = p["b"] * (v - rest), []
    for current in drive:
        for _ in range(substeps):
            if form == 2003:
                v = v + dt / substeps * (membrane_2003(v) - u + current)
            else:
                v = v + dt / substeps * (p["k"] * (v - p["v_r"]) * (v - p["v_t"]) - u + current) / p["C"]
        u = u + dt * p["a"] * (p["b"] * (v - rest) - u)
        fired = v >= (30.0 if form == 2003 else p["v_peak"])
        if fired:
            v, u = p["c"], u + p["d"]
        seen.append((v, u, fired))
    return tuple(np.array(x) for x in zip(*seen, strict=True))


def spike_times(p, current, v, u, duration, dt=0.005):
    """Spike times of the equations of 2003 themselves: Runge and Kutta's fourth order, spikes between grid points.

    Args:
        p: a, b, c and d.
        current: a constant.
        v: initial potential.
        u: initial recovery.
        duration: how long [ms].
        dt: time step.

    Returns:
        The times.
    """

    def slope(y):
        return np.array([membrane_2003(y[0]) - y[1] + current, p["a"] * (p["b"] * y[0] - y[1])])

    def advance(y, h):
        k1 = slope(y)
        k2 = slope(y + h / 2 * k1)
        k3 = slope(y + h / 2 * k2)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(y + h * k3))

    y, t, times = np.array([v, u]), 0.0, []
    while t < duration:
        new = advance(y, dt)
        h = dt
        if new[0] >= 30:
            low, high = 0.0, dt
            for _ in range(30):
                middle = (low + high) / 2
                low, high = (low, middle) if advance(y, middle)[0] >= 30 else (middle, high)
            h = high
            new = advance(y, h)
            new = np.array([p["c"], new[1] + p["d"]])
            times.append(t + h)
        y, t = new, t + h
    return np.array(times)
