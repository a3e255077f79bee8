"""Fast forms of the models' layers; tests hold each equal to its plain form."""

__all__: list[str] = []
