"""Ways to fit: where a search starts, how it descends, and how its end is refined."""

__all__: list[str] = []
