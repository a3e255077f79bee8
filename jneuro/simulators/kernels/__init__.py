"""Fast forms of the simulators' equations; tests hold each equal to the equations as they are published."""

__all__: list[str] = []
